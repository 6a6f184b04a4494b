"""The scans of a study, whatever its layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io.naming import too_long
from cortexgen.io.tables import grouped
from cortexgen.registry import everything, find, names
from cortexgen.studies.candidates import Candidate, natural
from cortexgen.studies.selection import choose_images, choose_participants, choose_visits, choose_where
from cortexgen.studies.study import Several, Study

OFFERED = ("auto", *names("studies"))
if TYPE_CHECKING:
    StudyName = str
else:
    StudyName = Literal[OFFERED]


@dataclass(frozen=True)
class Found:
    """Scans that can be used, and why others can't, by name or path.

    `Scan.image` is a NIfTI file, or the folder of a DICOM series (see `convert_dicom`).
    """

    scans: list[Scan]
    problems: dict[str, str]


def kind_of(root: Path) -> str:
    """The name of the first study, in their order, that a folder or file is laid out like.

    Raises:
        UserError: if it is none of them, saying what was looked for.
    """
    studies = dict(sorted(everything("studies").items(), key=lambda item: item[1].order))
    for name, study in studies.items():
        if (root.is_dir() or study.files) and study.fits(root):
            return name
    *layouts, last = (study.layout for study in studies.values())
    raise UserError(f"{root}: no study in this folder; looked for {', '.join(layouts)}, and {last}")


def find_study(
    root: Path,
    study: StudyName = "auto",
    table: Path | None = None,
    where: Mapping[str, Any] | None = None,
    visits: str | Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    image: str | Sequence[str] | None = None,
    several: Several | None = None,
    participants: Sequence[str] | None = None,
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
            (in the study's order, else by name); the study's own default unless given.
        participants: subjects, with or without "sub-".

    Raises:
        UserError: if there is no such study, an option names what isn't there, or nobody is left.
    """
    root = Path(root)
    if not root.exists():
        raise UserError(f"{root}: no such file or folder")
    kind = kind_of(root) if study == "auto" else study
    layout: Study = find("studies", kind)
    if not (root.is_dir() or layout.files):
        raise UserError(f"{root}: expected the folder of a study ({kind}), found a file")
    candidates = layout.read(root, Path(table) if table else None)
    if not candidates:
        raise UserError(f"{root}: no T1w image found (looked for the layout of {kind})")
    if participants:
        candidates = choose_participants(candidates, participants)
    candidates = choose_images(candidates, [image] if isinstance(image, str) else list(image or []))
    candidates = choose_where(candidates, {**({"group": list(groups)} if groups else {}), **(where or {})})
    if visits:
        candidates = choose_visits(candidates, visits)
    found = _named(candidates, several or layout.several)
    if not found.scans:
        name, reason = next(iter(found.problems.items()))
        raise UserError(f"{root}: none of {len(found.problems)} scans can be used; {name}: {reason}")
    return found


def _named(candidates: Sequence[Candidate], several: Several) -> Found:
    """One scan a name; the others become problems."""
    usable = sorted((c for c in candidates if not c.problem), key=lambda c: natural(c.name))
    groups = grouped(usable, attrgetter("name"))
    scans, problems = [], {}
    for name, group in groups.items():
        group.sort(key=lambda c: (c.order, natural(c.where)))
        if why := too_long(name):
            problems[name] = why
        elif len(group) > 1 and several == "refuse":
            shown = ", ".join(c.where for c in group[:3]) + (", ..." if len(group) > 3 else "")
            advice = "give an image pattern that fits one, or several: first"
            problems[name] = f"{len(group)} images would have this name ({shown}): {advice}"
        else:
            chosen = group[-1 if several == "last" else 0]
            scans.append(Scan(name, f"sub-{chosen.subject}", chosen.path, None, chosen.covariates))
    for candidate in candidates:
        if candidate.problem:
            taken = candidate.name in groups or candidate.name in problems
            problems[candidate.where if taken else candidate.name] = candidate.problem
    return Found(scans, problems)
