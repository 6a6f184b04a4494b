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
    smooth        the cortex smoothed by a Gaussian of 1, 2, 4 mm, and its border with white matter likewise
    contrast      grey matter moved by 15, 40, 80 % of the way to white matter's intensity (labels as they were)
    ages          every brain gives way to one whose age lies 33, 67, 100 % nearer to the middle, while participants.tsv
                  says what was asked for
    labels        5, 15, 40 % of the labelled voxels get the label of a neighbour (images as they were)
    others        25, 50, 100 % of the brains get the label map of another subject

Sets that are there already are used again. At the end, a table says which measure of `evaluate` saw which damage: the
undamaged set, the three severities, whether these are in order, and whether the worst lies beyond the undamaged set.
"""

import argparse
import csv
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from damaged import (
    Brain,
    Change,
    blurred,
    enlarged,
    flattened,
    mirrored,
    mislabelled,
    noisy,
    shifted,
    smoothed,
    traced,
    untouched,
)
from tqdm import tqdm

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import read_label_table
from cortexgen.cli import run
from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.errors import UserError
from cortexgen.evaluation.table import Table
from cortexgen.io import read_volume, write_volume
from cortexgen.io.bids import Row, derivative, read_tsv, write_tsv

SEVERITIES: dict[str, tuple[float, ...]] = {
    "blur": (1, 2, 4),
    "noise": (0.03, 0.08, 0.16),
    "shift": (2, 6, 12),
    "collapse": (8, 3, 1),
    "copies": (10, 50, 100),
    "ventricles": (1.25, 1.6, 2.2),
    "flip": (25, 50, 100),
    "smooth": (1, 2, 4),
    "contrast": (15, 40, 80),
    "ages": (33, 67, 100),
    "labels": (5, 15, 40),
    "others": (25, 50, 100),
}
VENTRICLE = "Lateral-Ventricle"
JUDGED = "Dice by a segmenter of real brains"
SEEN_BY = {  # the measures that a damage must move, and in which direction
    "blur": (("sharpness", -1), ("gradients", -1), ("spectrum", 1), ("edge", 1)),
    "noise": (("noise", 1), ("gradients", 1), ("spectrum", 1)),
    "shift": (("position", 1),),
    "collapse": (("spread", 1),),
    "ventricles": ((VENTRICLE, 1),),
    "flip": (("asymmetry", 1),),
    "copies": (("mean_d", -1), ("patches", 1)),
    "smooth": (("folding_d", -1), ("spectrum", 1), ("sharpness", -1)),
    "contrast": (("contrast", -1), ("intensities", 1)),
    "ages": (("age slope", -1), ("age r", -1)),
    "labels": ((JUDGED, -1),),
    "others": ((JUDGED, -1),),
}
LABELS_ONLY = ("labels", "others")  # which distances of images don't see
DISTANCES = ("fid_random", "mmd_random", "auc_random", "fid_region", "mmd_region", "auc_region")


class Member(NamedTuple):
    """One brain of a damaged set: its name there, the scan that it is made from, how, whose copy it is, and the scan
    whose covariates it is said to have, and whose labels it gets, if they are not its own."""

    name: str
    scan: Scan
    change: Change
    copy_of: str = "n/a"
    asked: Scan | None = None
    labels: Scan | None = None


def nearer(other: Sequence[Scan], share: float) -> list[Scan]:
    """For each scan the one whose age is nearest to its own, drawn to the median age by a share."""
    ages = np.array([float(scan.covariates["age"]) for scan in other])
    wanted = ages + share * (np.median(ages) - ages)
    return [other[int(np.abs(ages - age).argmin())] for age in wanted]


def members(
    damage: str, severity: float, real: Sequence[Scan], other: Sequence[Scan], number: Mapping[str, int]
) -> list[Member]:
    """The brains of a damaged set, as many as `other`; milder sets of collapse, copies, flip, others lie in worse ones.

    Arguments:
        number: of each class in label maps, by name.
    """
    tissues = {"cortex": number["Cerebral-Cortex"], "white": number["Cerebral-White-Matter"]}
    each: dict[str, Change] = {
        "blur": partial(blurred, mm=severity),
        "noise": partial(noisy, sd=severity),
        "shift": partial(shifted, mm=severity),
        "ventricles": partial(enlarged, factor=severity, ventricle=number[VENTRICLE]),
        "smooth": partial(smoothed, mm=severity, **tissues),
        "contrast": partial(flattened, percent=severity, **tissues),
        "labels": partial(mislabelled, percent=severity),
    }
    if damage in each:
        return [Member(scan.name, scan, each[damage]) for scan in other]
    if damage == "collapse":
        return [Member(scan.name, other[i % int(severity)], traced) for i, scan in enumerate(other)]
    if damage == "ages":
        chosen = nearer(other, severity / 100)
        return [Member(a.name, b, traced, asked=a) for a, b in zip(other, chosen, strict=True)]
    hit = round(severity / 100 * len(other))
    if damage == "others":
        following = [*other[1:], other[0]]
        both = zip(other, following, strict=True)
        return [Member(a.name, a, untouched, labels=b if i < hit else None) for i, (a, b) in enumerate(both)]
    if damage == "flip":
        return [Member(scan.name, scan, mirrored if i < hit else untouched) for i, scan in enumerate(other)]
    copies = [Member(f"sub-copy{i:02d}", real[i], partial(traced, mirror=i % 3 == 2), real[i].name) for i in range(hit)]
    return copies + [Member(scan.name, scan, untouched) for scan in other[hit:]]


def make(member: Member) -> Brain:
    """Read a member's scan and change it; its random numbers depend on its name alone."""
    if member.scan.labels is None:
        raise UserError(f"{member.scan.image}: expected a dseg beside it")
    image, grid = read_volume(member.scan.image)
    labels, _ = read_volume((member.labels or member.scan).labels or member.scan.labels, labels=True)
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
    rows = [{"participant_id": m.name, **(m.asked or m.scan).covariates, "copy_of": m.copy_of} for m in chosen]
    write_tsv(folder / "participants.tsv", rows)


def halves(cohort: Path) -> tuple[list[Scan], list[Scan]]:
    """Every second scan as the real brains, and the others."""
    scans = read_cohort(cohort)
    return scans[::2], scans[1::2]


def write_sets(cohort: Path, out: Path, damages: Sequence[str]) -> dict[str, Path]:
    """Write the real brains, the undamaged others and the damaged sets; returns the folders of all but the first."""
    real, other = halves(cohort)
    table = cohort / "dseg.tsv"
    number = {name: k for k, name in read_label_table(table).items()}
    sets = {"undamaged": [Member(scan.name, scan, untouched) for scan in other]}
    for damage in damages:
        sets |= {f"{damage}-{s:g}": members(damage, s, real, other, number) for s in SEVERITIES[damage]}
    write_set(out / "real", table, [Member(scan.name, scan, untouched) for scan in real])
    for name, chosen in tqdm(sets.items(), desc="damaging", unit="set", disable=None):
        write_set(out / name, table, chosen)
    return {name: out / name for name in sets}


def _value(tables: Mapping[str, Sequence[Row]], name: str, measure: str) -> float:
    """A measure of a set, from the table that has it; NaN if none has."""
    places: dict[str, tuple[str, dict[str, str], str]] = {
        VENTRICLE: ("regions", {"region": VENTRICLE}, "d"),
        "patches": ("patches", {}, "flagged"),
        "age slope": ("conditions", {"covariate": "age"}, "slope"),
        "age r": ("conditions", {"covariate": "age"}, "r"),
        JUDGED: ("labels", {"judged": name}, "dice"),
    }
    table, wanted, column = places.get(measure, ("comparison", {"name": measure, "protocol": "standard"}, "value"))
    wanted = {"set": name, **wanted}
    found = [row[column] for row in tables.get(table, ()) if all(row[k] == v for k, v in wanted.items())]
    return float(found[0]) if found and found[0] is not None else float("nan")


def verdict(out: Path) -> list[Row]:
    """A row a damage and measure: its value for the undamaged set and each severity, and whether the order is right."""
    folder = out / "evaluation" / "tables"
    tables = {path.stem: read_csv(path) for path in folder.glob("*.csv")}
    rows: list[Row] = []
    for damage, seen in SEEN_BY.items():
        names = ["undamaged", *(f"{damage}-{severity:g}" for severity in SEVERITIES[damage])]
        distances = () if damage in LABELS_ONLY else tuple((name, 1) for name in DISTANCES)
        for measure, sign in (*seen, *distances):
            values = [_value(tables, name, measure) for name in names]
            if all(np.isnan(values[1:])):  # not measured, or not among the damages asked for
                continue
            steps = [sign * (b - a) for a, b in pairwise(values)]
            row: Row = {"damage": damage, "measure": measure, **dict(zip(("undamaged", *"123"), values, strict=True))}
            worse = sign * (values[-1] - values[0]) > 0
            rows.append(row | {"in_order": all(step > 0 for step in steps[1:]), "beyond_undamaged": worse})
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
    parser.add_argument("--damages", default=",".join(SEVERITIES), help="those of these, comma-separated")
    parser.add_argument("--write-only", action="store_true", help="write the sets, and evaluate nothing")
    options, rest = parser.parse_known_args()
    if unknown := sorted({*options.damages.split(",")} - {*SEVERITIES}):
        raise UserError(f"--damages: there is no {unknown[0]}; there are {', '.join(SEVERITIES)}")
    sets = write_sets(options.cohort, options.out, options.damages.split(","))
    if options.write_only:
        return
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
