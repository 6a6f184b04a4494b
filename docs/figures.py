"""Makes the pictures of README and site from real brains and generated ones.

    cortexgen generate drawn --num-samples 6 --cohort ds002748
    python docs/figures.py ds002748 drawn

Real brains in committed pictures are of OpenNeuro ds002748, which is CC0.
"""

import argparse
from pathlib import Path

import torch

from cortexgen import figures
from cortexgen.atlas.intensity import normalize
from cortexgen.data.cohort import read_cohort
from cortexgen.figures import to_png
from cortexgen.io import read_volume

HERE = Path(__file__).parent
SHOWN = 6


def brains(real: Path, drawn: Path, held_out: list[str]) -> None:
    """Held-out people above generated brains, and the latter's labels."""
    people = [s for s in read_cohort(real, "*_T1w.nii*") if s.subject.removeprefix("sub-") in held_out][:SHOWN]
    new = read_cohort(drawn, "*_T1w.nii*", "*_dseg.nii*")[:SHOWN]
    grid = read_volume(new[0].image)[1]
    rows = {
        name: [normalize(read_volume(scan.image)[0], scan.image)[0] for scan in scans]
        for name, scans in (("People (ds002748)", people), ("Generated", new), ("with labels", new))
    }
    labels = {name: [torch.zeros_like(volume) for volume in volumes] for name, volumes in rows.items()}
    labels["with labels"] = [read_volume(scan.labels, labels=True)[0][0] for scan in new if scan.labels]
    (HERE / "brains.png").write_bytes(to_png(figures.cohort(rows, grid, plane="axial", labels=labels), dpi=90))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("--held-out", default="05,10,15,20,25,30", help="the people shown")
    given = parser.parse_args()
    brains(given.real, given.drawn, given.held_out.split(","))
