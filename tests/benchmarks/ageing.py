"""How volumes change with age in label maps that a segmenter made of people, and in the template's, registered to them.

    python tests/benchmarks/ageing.py COHORT REGISTERED [--ages 25 70]

COHORT has a dseg beside each image, of the template's classes; REGISTERED is what `cortexgen register` made of it, with
ages in its participants.tsv. Of each class: the change of a straight line through all people's volumes between two
ages, in per cent of the first, and the correlation with age.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.data.cohort import find_scans
from cortexgen.io import read_volume

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("cohort", type=Path)
parser.add_argument("registered", type=Path)
parser.add_argument("--ages", type=float, nargs=2, default=(25, 70))
options = parser.parse_args()

people = pd.read_csv(options.registered / "participants.tsv", sep="\t")
ages = {str(k): float(age) for k, age in zip(people["participant_id"], people["age"], strict=True) if age == age}
classes = load_template(MNI152).classes
known, counts = [], []
for scan in find_scans(options.cohort):
    for path in options.registered.glob(f"{scan.name}/anat/*_desc-warped_dseg.nii.gz"):
        if scan.labels is not None and scan.name in ages:
            maps = [read_volume(p, labels=True)[0] for p in (scan.labels, path)]
            known.append(ages[scan.name])
            counts.append([torch.bincount(labels.flatten(), minlength=len(classes)).numpy() for labels in maps])
volumes = np.array(counts, dtype=float)
print(f"{len(known)} people; change from {options.ages[0]:g} to {options.ages[1]:g} years, and correlation with age")
for k, name in enumerate(classes):
    if k:
        shown = []
        for side, title in enumerate(("segmenter", "registered")):
            first, second = np.polyval(np.polyfit(known, volumes[:, side, k], 1), options.ages)
            r = np.corrcoef(known, volumes[:, side, k])[0, 1]
            shown.append(f"{title} {100 * (second / first - 1):+.0f} % ({r:+.2f})")
        print(f"{name}: {', '.join(shown)}")
