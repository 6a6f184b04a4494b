"""What labelling a brain by the network's answer to it alone costs, against the mean with that to its mirror image.

    python tests/benchmarks/labelling.py COHORT [COHORT ...] [--subjects 6]

Of the first subjects of each cohort (skull-stripped T1w in template space, with dsegs of the template's classes): mean
Dice of both ways with the dsegs, processor seconds a brain, and how far regional volumes move, in deviations of theirs.
"""

import argparse
import time
from pathlib import Path

import torch

from cortexgen.atlas.intensity import normalize
from cortexgen.data.cohort import find_scans
from cortexgen.evaluation.labelling import RegisteredLabels
from cortexgen.io import read_volume
from cortexgen.metrics import dice

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cohorts", nargs="+", type=Path)
parser.add_argument("--subjects", type=int, default=6)
options = parser.parse_args()

torch.set_num_threads(1)
labeller = RegisteredLabels()
network = labeller.registrar.registration
classes = len(labeller.classes or {})
scans = [scan for cohort in options.cohorts for scan in find_scans(cohort)[: options.subjects]]
volumes = {}
for way, mirror in (("mirrored too", True), ("once", False)):
    network.mirror = mirror
    overlaps, sizes, seconds = [], [], 0.0
    for scan in scans:
        image, grid = read_volume(scan.image)
        start = time.process_time()
        found = labeller.label(normalize(image), grid, scan.image).labels
        seconds += time.process_time() - start
        overlaps.append(dice(found, read_volume(scan.labels, labels=True)[0], classes).nanmean())
        sizes.append(torch.bincount(found.flatten(), minlength=classes)[1:].double())
    volumes[way] = torch.stack(sizes)
    print(
        f"{way}: Dice {float(torch.stack(overlaps).mean()):.4f}, {seconds / len(scans):.2f} processor seconds a brain"
    )
moved = (volumes["once"] - volumes["mirrored too"]) / volumes["mirrored too"].std(dim=0)
mean, one = float(moved.mean(dim=0).abs().mean()), float(moved.square().mean().sqrt())
print(f"volumes: {mean:.3f} SD off in the mean, {one:.3f} SD in one brain")
