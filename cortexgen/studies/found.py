"""The scans of a study, whatever its layout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io.naming import LONGEST, too_long
from cortexgen.studies.adni import PTID, read_adni, subject_folders
from cortexgen.studies.bids import read_bids
from cortexgen.studies.candidates import Candidate, is_analyze, is_nifti, natural
from cortexgen.studies.folder import TABLES, read_folder
from cortexgen.studies.ncanda import CASE, case_folders, read_ncanda
from cortexgen.studies.selection import choose_images, choose_visits, choose_where

Study = Literal["auto", "bids", "adni", "ncanda", "folder"]
Several = Literal["refuse", "first", "last"]
READERS: dict[str, Callable[[Path, Path | None], list[Candidate]]] = {
    "bids": read_bids,
    "adni": read_adni,
    "ncanda": read_ncanda,
    "folder": read_folder,
}


@dataclass(frozen=True)
class Found:
    """Scans that can be used, and why others can't, by name or path.

    `Scan.image` is a NIfTI file, or the folder of a DICOM series (see `convert_dicom`).
    """

    scans: list[Scan]
    problems: dict[str, str]


def kind_of(root: Path) -> str:
    """ "bids", "adni", "ncanda" or "folder".

    Raises:
        UserError: if it is none of them, saying what was looked for.
    """
    if root.is_file():
        return "folder"
    if any(p.is_dir() and p.name.startswith("sub-") for p in root.iterdir()):
        return "bids"
    if subject_folders(root):
        return "adni"
    if case_folders(root):
        return "ncanda"
    if any(is_nifti(p) for p in root.iterdir()):
        return "folder"
    raise UserError(
        f"{root}: no study in this folder; looked for sub-* (BIDS), folders like 002_S_0295 (ADNI, {PTID.pattern}), "
        f"cases/NCANDA_S00033 (NCANDA, {CASE.pattern}), and *.nii or *.nii.gz"
    )


def find_study(
    root: Path,
    study: Study = "auto",
    table: Path | None = None,
    where: Mapping[str, Any] | None = None,
    visits: str | Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    image: str | Sequence[str] | None = None,
    several: Several | None = None,
) -> Found:
    """The scans of a study that a user means, sorted by name.

    Covariates are the study's columns in lower case (`acq_date`), with `age` in years, `sex` M or F, and `group`.

    Arguments:
        root: the study's folder, a folder of NIfTI files, one such file, or a table of paths (.csv, .tsv).
        study: its layout; "auto" looks.
        table: of covariates, where it doesn't lie in its usual place.
        where: by column: a value, a range "50-70", a bound ">=50", or a list of such, one of which must fit:
            `{group: [CN, MCI], age: "50-70"}`.
        visits: names of visits; "baseline": the first scan of what the study calls so; "first": the earliest there is.
        groups: short for `where: {group: [...]}`.
        image: pattern of the image's path in the study, or several in order of preference, whatever the case.
        several: what to do with several images of a visit: "refuse" them as a problem, or take the "first" or "last"
            (ADNI: by time of acquisition; else by name). ADNI's default is "first", for its protocol repeats the scan.

    Raises:
        UserError: if there is no such study, an option names what isn't there, or nobody is left.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder")
    if not root.is_dir() and not (is_nifti(root) or is_analyze(root) or root.suffix.lower() in TABLES):
        raise UserError(f"{root}: expected a folder, a NIfTI file, or a table (.csv, .tsv)")
    kind = kind_of(root) if study == "auto" else study
    if kind != "folder" and root.is_file():
        raise UserError(f"{root}: expected the folder of a study ({kind}), found a file")
    candidates = READERS[kind](root, Path(table) if table else None)
    if not candidates:
        raise UserError(f"{root}: no T1w image found (looked for the layout of {kind})")
    candidates = choose_images(candidates, [image] if isinstance(image, str) else list(image or []))
    candidates = choose_where(candidates, {**({"group": list(groups)} if groups else {}), **(where or {})})
    if visits:
        candidates = choose_visits(candidates, visits)
    found = _named(candidates, several or ("first" if kind == "adni" else "refuse"))
    if not found.scans:
        name, reason = next(iter(found.problems.items()))
        raise UserError(f"{root}: none of {len(found.problems)} scans can be used; {name}: {reason}")
    return found


def _named(candidates: Sequence[Candidate], several: Several) -> Found:
    """One scan a name; the others become problems."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: natural(c.name)):
        if not candidate.problem:
            groups.setdefault(candidate.name, []).append(candidate)
    scans, problems = [], {}
    for name, group in groups.items():
        group.sort(key=lambda c: (c.order, natural(c.where)))
        if len(name) > LONGEST:
            problems[name] = too_long(name)
            continue
        if len(group) > 1 and several == "refuse":
            shown = ", ".join(c.where for c in group[:3]) + (", ..." if len(group) > 3 else "")
            problems[name] = (
                f"{len(group)} images would have this name ({shown}): give an image pattern that fits one, "
                "or several: first"
            )
            continue
        chosen = group[-1 if several == "last" else 0]
        scans.append(Scan(name, f"sub-{chosen.subject}", chosen.path, None, chosen.covariates))
    for candidate in candidates:
        if candidate.problem:
            taken = candidate.name in groups or candidate.name in problems
            problems[candidate.where if taken else candidate.name] = candidate.problem
    return Found(scans, problems)
