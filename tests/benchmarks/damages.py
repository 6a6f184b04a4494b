"""Known damages done to real brains, and what `cortexgen evaluate` says of them.

    python tests/benchmarks/damages.py COHORT OUT

COHORT holds skull-stripped T1w in template space with their dsegs, on one grid symmetric about x = 0. Every second
subject goes to OUT/real; the others are damaged, each damage in three severities, into OUT/blur-1, OUT/blur-2 and so
on, image and labels alike. OUT/undamaged holds them as they are: what it scores is the floor.

    blur          Gaussian of 1, 2, 4 mm (labels as they were)
    noise         Rician, standard deviation 0.03, 0.08, 0.16 of the range, in the brain alone (labels as they were)
    shift         by 2, 6, 12 mm to the right
    collapse      8, 3, 1 brains again and again, each time with a little noise of its own
    copies        10, 50, 100 % of the set are subjects of OUT/real with a little noise and another gain, every third of
                  them mirrored; participants.tsv names them in the column copy_of, which the program doesn't read
    ventricles    the lateral ventricles 1.25, 1.6, 2.2 times as large, by a flow that presses on what is around them
    flip          25, 50, 100 % of the brains mirrored

Sets that are there already are used again. At the end, a table says which measure of `evaluate` saw which damage: the
undamaged set, the three severities, whether these are in order, and whether the worst lies beyond the undamaged set.
"""

import argparse
import csv
import shutil
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor
from tqdm import tqdm

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import read_label_table
from cortexgen.cli import run
from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.errors import UserError
from cortexgen.evaluation.table import Table
from cortexgen.io import Grid, read_volume, write_volume
from cortexgen.io.bids import Row, derivative, read_tsv, write_tsv
from cortexgen.metrics.gaussian import gaussian
from cortexgen.spatial import folded, identity, integrate, warp, warp_labels

SEVERITIES: dict[str, tuple[float, ...]] = {
    "blur": (1, 2, 4),
    "noise": (0.03, 0.08, 0.16),
    "shift": (2, 6, 12),
    "collapse": (8, 3, 1),
    "copies": (10, 50, 100),
    "ventricles": (1.25, 1.6, 2.2),
    "flip": (25, 50, 100),
}
VENTRICLE = "Lateral-Ventricle"
SEEN_BY = {  # the measure that a damage must move, and in which direction
    "blur": ("sharpness", -1),
    "noise": ("noise", 1),
    "shift": ("position", 1),
    "collapse": ("spread", 1),
    "ventricles": (VENTRICLE, 1),
    "flip": ("asymmetry", 1),
    "copies": ("mean_d", -1),
}
NEAR, FAR = 3.0, 14.0  # mm, Gaussians of where ventricles grow and of what gives way
STRONGEST = 4.0  # flow that is tried
MET = 0.03  # relative error of a ventricle's volume
TRACE = 0.01  # standard deviation of the noise that tells copies apart


class Brain(NamedTuple):
    """An image `[1, D, H, W]` in [0, 1], its labels, and the grid of both."""

    image: Tensor
    labels: Tensor
    grid: Grid


Change = Callable[[Brain, torch.Generator], Brain]


class Member(NamedTuple):
    """One brain of a damaged set: its name there, the scan that it is made from, how, and whose copy it is."""

    name: str
    scan: Scan
    change: Change
    copy_of: str = "n/a"


def untouched(brain: Brain, random: torch.Generator) -> Brain:
    """The brain."""
    return brain


def blurred(brain: Brain, random: torch.Generator, mm: float) -> Brain:
    """The image smoothed by a Gaussian, over the edge of the brain too."""
    return brain._replace(image=gaussian(brain.image[None], mm / brain.grid.spacing[0])[0])


def noisy(brain: Brain, random: torch.Generator, sd: float) -> Brain:
    """The magnitude of the image with complex noise, where there is brain."""
    real, imaginary = (torch.randn(brain.image.shape, generator=random) * sd for _ in range(2))
    return brain._replace(image=torch.hypot(brain.image + real, imaginary) * (brain.image > 0))


def shifted(brain: Brain, random: torch.Generator, mm: float) -> Brain:
    """Image and labels moved to the right."""
    voxels = round(mm / brain.grid.spacing[2])
    if brain.image[..., -voxels:].any():
        raise UserError(f"a shift by {mm:g} mm would push the brain out of its grid, {brain.grid}")
    image, labels = (volume.roll(voxels, -1) for volume in brain[:2])
    return Brain(image, labels, brain.grid)


def mirrored(brain: Brain, random: torch.Generator) -> Brain:
    """Left and right swapped, about x = 0."""
    return Brain(brain.image.flip(-1), brain.labels.flip(-1), brain.grid)


def traced(brain: Brain, random: torch.Generator, mirror: bool = False) -> Brain:
    """The brain again with a trace of noise and a gain of 0.95 to 1, so that no file equals its original."""
    brain = mirrored(brain, random) if mirror else brain
    gain = 1 - 0.05 * float(torch.rand(1, generator=random))
    return brain._replace(image=noisy(brain, random, TRACE).image * gain)


def swelling(labels: Tensor, grid: Grid, ventricle: int) -> Tensor:
    """A velocity that makes the ventricles grow and their surroundings give way, `[1, 3, D, H, W]` in voxels.

    The gradient of the potential whose Laplacian is the ventricles' mask, smoothed by a narrow Gaussian, less the same
    smoothed by a wide one: nothing flows far away. As a pull-back it points to where the tissue came from. At strength
    1, ventricles much larger than the narrow Gaussian grow by about e.
    """
    waves = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(n) * 2 * torch.pi for n in grid.shape), indexing="ij"))
    square = waves.square().sum(dim=0)
    near, far = (torch.exp(-square * (mm / grid.spacing[0]) ** 2 / 2) for mm in (NEAR, FAR))
    growth = torch.fft.fftn((labels[0] == ventricle).float()) * (near - far)
    return torch.fft.ifftn(1j * waves * growth / square.clamp(min=1e-6), dim=(1, 2, 3)).real[None]


def enlarged(brain: Brain, random: torch.Generator, factor: float, ventricle: int) -> Brain:
    """The lateral ventricles larger by a factor, image and labels warped by a flow without folds.

    Raises:
        UserError: if the factor isn't met, or the flow folds.
    """
    velocity = swelling(brain.labels, brain.grid, ventricle)
    before, classes = int((brain.labels == ventricle).sum()), int(brain.labels.max()) + 1

    def flow(strength: float) -> tuple[Tensor, Tensor, float]:
        displacement = integrate(strength * velocity)
        labels, _ = warp_labels(brain.labels[None], identity(brain.grid.shape) + displacement, classes)
        return displacement, labels[0], int((labels == ventricle).sum()) / before

    strength = brentq(lambda s: flow(s)[2] - factor, 0, STRONGEST, xtol=0.01)
    displacement, labels, found = flow(strength)
    folds = int(folded(displacement))
    if abs(found / factor - 1) > MET or folds:
        raise UserError(f"ventricles grow by {found:.2f}, expected {factor:g}, and {folds} cubes of voxels fold")
    return Brain(warp(brain.image[None], displacement)[0], labels, brain.grid)


def members(damage: str, severity: float, real: Sequence[Scan], other: Sequence[Scan], ventricle: int) -> list[Member]:
    """The brains of a damaged set, as many as `other`; milder sets of collapse, copies and flip lie in worse ones."""
    each: dict[str, Change] = {
        "blur": partial(blurred, mm=severity),
        "noise": partial(noisy, sd=severity),
        "shift": partial(shifted, mm=severity),
        "ventricles": partial(enlarged, factor=severity, ventricle=ventricle),
    }
    if damage in each:
        return [Member(scan.name, scan, each[damage]) for scan in other]
    if damage == "collapse":
        return [Member(scan.name, other[i % int(severity)], traced) for i, scan in enumerate(other)]
    hit = round(severity / 100 * len(other))
    if damage == "flip":
        return [Member(scan.name, scan, mirrored if i < hit else untouched) for i, scan in enumerate(other)]
    copies = [Member(f"sub-copy{i:02d}", real[i], partial(traced, mirror=i % 3 == 2), real[i].name) for i in range(hit)]
    return copies + [Member(scan.name, scan, untouched) for scan in other[hit:]]


def make(member: Member) -> Brain:
    """Read a member's scan and change it; its random numbers depend on its name alone."""
    if member.scan.labels is None:
        raise UserError(f"{member.scan.image}: expected a dseg beside it")
    image, grid = read_volume(member.scan.image)
    labels, _ = read_volume(member.scan.labels, labels=True)
    random = torch.Generator().manual_seed(zlib.crc32(member.name.encode()))
    changed = member.change(Brain(normalize(image, member.scan.image), labels, grid), random)
    return changed._replace(image=changed.image.clamp(0, 1))


def write_set(folder: Path, table: Path, chosen: Sequence[Member]) -> None:
    """Write a set as a BIDS derivative, participants.tsv last."""
    if Path(folder, "participants.tsv").is_file():
        return
    for member in tqdm(chosen, desc=folder.name, unit="brain", disable=None, leave=False):
        brain = make(member)
        write_volume(derivative(folder, member.name, "T1w"), brain.image, brain.grid, np.uint8)
        write_volume(derivative(folder, member.name, "dseg"), brain.labels, brain.grid, np.uint8)
    shutil.copy(table, folder / "dseg.tsv")
    rows = [{"participant_id": m.name, **m.scan.covariates, "copy_of": m.copy_of} for m in chosen]
    write_tsv(folder / "participants.tsv", rows)


def halves(cohort: Path) -> tuple[list[Scan], list[Scan]]:
    """Every second scan as the real brains, and the others."""
    scans = read_cohort(cohort)
    return scans[::2], scans[1::2]


def write_sets(cohort: Path, out: Path) -> dict[str, Path]:
    """Write the real brains, the undamaged others and every damaged set; returns the folders of all but the first."""
    real, other = halves(cohort)
    table = cohort / "dseg.tsv"
    ventricle = next(k for k, name in read_label_table(table).items() if name == VENTRICLE)
    sets = {"undamaged": [Member(scan.name, scan, untouched) for scan in other]}
    for damage, severities in SEVERITIES.items():
        sets |= {f"{damage}-{s:g}": members(damage, s, real, other, ventricle) for s in severities}
    write_set(out / "real", table, [Member(scan.name, scan, untouched) for scan in real])
    for name, chosen in tqdm(sets.items(), desc="damaging", unit="set", disable=None):
        write_set(out / name, table, chosen)
    return {name: out / name for name in sets}


def _value(rows: Sequence[Row], **wanted: str) -> float:
    found = [row["value" if "value" in row else "d"] for row in rows if all(row[k] == v for k, v in wanted.items())]
    return float(found[0]) if found and found[0] is not None else float("nan")


def verdict(out: Path) -> list[Row]:
    """A row a damage: its measure for the undamaged set and each severity, and whether the order is right."""
    comparisons, regions = (read_csv(out / "evaluation" / "tables" / f"{n}.csv") for n in ("comparison", "regions"))
    rows: list[Row] = []
    for damage, (measure, sign) in SEEN_BY.items():
        names = ["undamaged", *(f"{damage}-{severity:g}" for severity in SEVERITIES[damage])]
        if measure == VENTRICLE:
            values = [_value(regions, set=name, region=measure) for name in names]
        else:
            values = [_value(comparisons, set=name, name=measure) for name in names]
        steps = [sign * (b - a) for a, b in pairwise(values[1:])]
        row: Row = {"damage": damage, "measure": measure, **dict(zip(("undamaged", *"123"), values, strict=True))}
        worse = sign * (values[-1] - values[0]) > 0
        rows.append(row | {"in_order": all(step > 0 for step in steps), "beyond_undamaged": worse})
    return rows


def hits(sets: Mapping[str, Path], out: Path) -> list[Row]:
    """A row a set: copies there are, found with the right subject by images or fields, and false alarms."""
    found = read_csv(out / "evaluation" / "tables" / "copies_brains.csv")
    rows: list[Row] = []
    for name, folder in sets.items():
        truth = {row["participant_id"]: row["copy_of"] for row in read_tsv(folder / "participants.tsv")}
        copies = {brain for brain, of in truth.items() if of}
        flagged = {r["brain"]: r["nearest"] for r in found if r["set"] == name and r["copy"] == "true"}
        right = sum(truth[brain] == nearest for brain, nearest in flagged.items() if brain in copies)
        rows.append({"set": name, "copies": len(copies), "found": right, "false": len(set(flagged) - copies)})
    return rows


def read_csv(path: Path) -> list[Row]:
    """Rows of a CSV file, empty cells as None."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]


def main() -> None:
    """Write the sets and evaluate them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    options, rest = parser.parse_known_args()
    sets = write_sets(options.cohort, options.out)
    named = [f"{name}={folder}" for name, folder in sets.items()]
    run(["evaluate", str(options.out / "real"), *named, str(options.out / "evaluation"), *rest])
    for name, rows in (("verdict", verdict(options.out)), ("copies", hits(sets, options.out))):
        table = Table(rows)
        table.write(options.out / name)
        print(table.to_markdown())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"damages: error: {error}")
