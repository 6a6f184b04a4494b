"""NCANDA as its releases are laid out."""

import re
from dataclasses import replace
from pathlib import Path

from cortexgen.errors import UserError
from cortexgen.io.bids import Row
from cortexgen.io.naming import is_nifti, unreadable
from cortexgen.io.participants import covariates, field
from cortexgen.io.paths import label
from cortexgen.io.tables import read_table
from cortexgen.studies.candidates import Candidate, folders, named_folders, natural
from cortexgen.studies.study import Study

CASE = re.compile(r"NCANDA_S\d{5}")
Key = tuple[str, str, str]  # subject, arm and visit
MONTHS = 100  # an age above is in months: participants are 12 and older, and none is a hundred years old


def read_ncanda(root: Path, table: Path | None = None) -> list[Candidate]:
    """`cases/NCANDA_S00033/standard/<visit>/structural/native/t1.nii.gz`, with its row of demographics.csv.

    Other files of the name t1*.nii[.gz] under `structural` can be chosen by a pattern. Subjects are named
    sub-NCANDAS00033, visits ses-baseline, ses-followup1y. Where there is a table, an image without a row is a problem,
    and a row without an image, too, if its `mri_structural_age` says that there is one.

    Arguments:
        root: a release (NCANDA_SNAPS_...), its folder `cases`, or a folder with several parts of a release.
        table: demographics.csv, unless it lies under `summaries`.
    """
    rows = _rows([table] if table else _tables(root))
    candidates, seen = [], set()
    for case in named_folders(root, CASE):
        for structural in sorted(case.glob("*/*/structural")):
            arm, visit = structural.parts[-3:-1]
            key = case.name, arm, visit
            row = rows.get(key, {})
            images = [p for _, files in folders(structural) for p in files if is_nifti(p) and p.name.startswith("t1")]
            if not images:
                continue
            seen.add(key)
            usual = _usual(images)
            for path in images:
                missing = f"{path}: no row for {', '.join(key)} in demographics.csv" if rows and not row else ""
                candidates.append(_candidate(key, path, root, row, path == usual, unreadable(path) or missing))
    for key, row in rows.items():
        if key not in seen and row.get("mri_structural_age", "") is not None:
            path = root.joinpath(*key, "structural", "native", "t1.nii.gz")
            problem = f"demographics.csv has {', '.join(key)}, but there is no t1.nii.gz"
            candidates.append(replace(_candidate(key, path, root, row, True, problem), absent=True))
    return candidates


def _candidate(key: Key, path: Path, root: Path, row: Row, usual: bool, problem: str) -> Candidate:
    case, arm, visit = key
    session = label(visit) if arm == "standard" else label(f"{arm}_{visit}")
    where = path.relative_to(root).as_posix()
    order = (visit != "baseline", natural(visit))
    return Candidate(label(case), session, path, where, row, order, visit == "baseline", usual, problem=problem)


def _usual(images: list[Path]) -> Path:
    """The native T1w, else the one nearest to the top."""
    exact = re.compile(r"t1\.nii(\.gz)?")
    return min(images, key=lambda p: (p.parent.name != "native", not exact.fullmatch(p.name), len(p.parts)))


def _tables(root: Path) -> list[Path]:
    places = [root, root.parent] if root.name == "cases" else [root]
    patterns = ("demographics.csv", "summaries/demographics.csv", "summaries/*/demographics.csv")
    found = [p for place in places for up in ("", "*/") for pattern in patterns for p in place.glob(up + pattern)]
    return sorted(set(found))


def _rows(tables: list[Path]) -> dict[Key, Row]:
    """Covariates by subject, arm and visit; age in years."""
    rows = {}
    for table in tables:
        lines = read_table(table)
        if not {"subject", "visit"} <= set(lines[0]):
            raise UserError(f"{table}: expected columns subject, arm, visit, found {', '.join(lines[0])}")
        for line, row in zip(lines, covariates(lines, ["subject", "participant_id"], table), strict=True):
            if isinstance(row.get("age"), float) and row["age"] > MONTHS:
                row["age"] /= 12
            rows[line["subject"], field(line, ["arm"]) or "standard", line["visit"]] = row
    return rows


NCANDA = Study(
    f"cases/NCANDA_S00033 (NCANDA, {CASE.pattern})", lambda root: bool(named_folders(root, CASE)), read_ncanda, order=30
)
