"""One cohort, or several as one: names that tell their subjects apart, and which one each is of."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io.participants import alike
from cortexgen.io.paths import label, resolved
from cortexgen.io.tables import COHORT

Roots = list[Path] | Path  # a list first: on a command line what is written like one is one


class Cohort(NamedTuple):
    """A folder of subjects.

    Attributes:
        name: of the cohort.
        root: the folder.
        scans: by the names that they have among all cohorts.
        called: what each subject is called among them, by its name in the folder.
    """

    name: str
    root: Path
    scans: list[Scan]
    called: dict[str, str]


def folders_of(given: Roots | Sequence[Path | str] | str) -> dict[str, Path]:
    """The folders of one or several cohorts by their names, in order of these.

    A cohort is called after its folder; folders of one name, with so much of the path before it as tells them apart.

    Raises:
        UserError: if there is none, or one is given twice.
    """
    roots = [Path(given)] if isinstance(given, str | Path) else [Path(root) for root in given]
    if not roots:
        raise UserError("root: expected a folder, or a list of some, got an empty list")
    times = Counter(map(resolved, roots))
    if twice := [root for root in roots if times[resolved(root)] > 1]:
        raise UserError(f"{twice[-1]}: given twice")
    parts = {root: Path(os.path.abspath(root)).parts for root in roots}

    def name(own: tuple[str, ...]) -> str:
        depths = (n for n in range(1, len(own)) if sum(other[-n:] == own[-n:] for other in parts.values()) == 1)
        return "/".join(own[-next(depths, len(own)) :])

    return dict(sorted((name(own), root) for root, own in parts.items()))


def place(roots: Iterable[Path]) -> str:
    """Folders as a message names them."""
    return " and ".join(map(str, roots))


def read_cohorts(folders: Mapping[str, Path], find: Callable[[Path], list[Scan]]) -> list[Cohort]:
    """The scans of each folder; those of several have the covariate `cohort`.

    It is the cohort's name, unless a table of participants has a column `cohort`. A subject whose id another cohort has
    too is called after its cohort and id: "sub-01" of "site-a" is "sub-sitea01" (an x goes between two digits).

    Arguments:
        folders: of the cohorts, by name.
        find: the scans of a folder.

    Raises:
        UserError: if two subjects would be called alike, or one of several is no folder; and as `find`.
    """
    if file := next((root for root in folders.values() if len(folders) > 1 and root.is_file()), None):
        raise UserError(f"{file}: a file; expected folders in a list, each a cohort")
    found = {name: find(root) for name, root in folders.items()}
    subjects = {name: list(dict.fromkeys(scan.subject for scan in scans)) for name, scans in found.items()}
    times = Counter(subject for each in subjects.values() for subject in each)
    called = {name: {s: _apart(name, s) if times[s] > 1 else s for s in each} for name, each in subjects.items()}
    cohorts = [Cohort(name, folders[name], scans, called[name]) for name, scans in found.items()]
    if len(cohorts) == 1:
        return cohorts
    _check_apart(called)
    rows = iter(alike([row for cohort in cohorts for row in _covariates(cohort)]))
    return [c._replace(scans=[replace(_renamed(s, c.called), covariates=next(rows)) for s in c.scans]) for c in cohorts]


def all_scans(cohorts: Iterable[Cohort]) -> list[Scan]:
    """Those of one cohort after the other."""
    return [scan for cohort in cohorts for scan in cohort.scans]


def _apart(name: str, subject: str) -> str:
    cohort, own = label(name), subject.removeprefix("sub-")
    return f"sub-{cohort}{'x' * (cohort[-1:].isdigit() and own[:1].isdigit())}{own}"


def _check_apart(called: Mapping[str, Mapping[str, str]]) -> None:
    """Say who is called otherwise than before, or that two would be called alike."""
    times = Counter(now for names in called.values() for now in names.values())
    changed = [(name, was, now) for name, names in called.items() for was, now in names.items() if was != now]
    for name, was, now in changed:
        if times[now] > 1:
            raise UserError(f"{was} of {name} would be called {now}, as another subject is; rename a folder")
    if changed:
        some = ", ".join(f"{was} of {name} is called {now}" for name, was, now in (changed[0], changed[-1]))
        count = len({was for _, was, _ in changed})
        warnings.warn(f"{count} id(s) of subjects stand in several cohorts: {some}", stacklevel=4)


def _covariates(cohort: Cohort) -> list[dict[str, Any]]:
    """Those of its scans, with the cohort unless it has a column of its own."""
    rows = [scan.covariates for scan in cohort.scans]
    return rows if any(row.get(COHORT) is not None for row in rows) else [row | {COHORT: cohort.name} for row in rows]


def _renamed(scan: Scan, called: Mapping[str, str]) -> Scan:
    subject = called[scan.subject]
    return replace(scan, name=subject + scan.name.removeprefix(scan.subject), subject=subject)


def by_cohort(generated: Mapping[str, Any]) -> Any:
    """What the data of each cohort were made by; of several an entry each, {"Cohort": ..., "GeneratedBy": ...}."""
    if len(generated) == 1:
        return next(iter(generated.values()))
    return [{"Cohort": name, "GeneratedBy": by} for name, by in generated.items()]


def pipelines(preprocessing: Any) -> list[Any]:
    """What `by_cohort` joined, without the cohorts' names."""
    entries = preprocessing if isinstance(preprocessing, list) else []
    several = [entry["GeneratedBy"] for entry in entries if isinstance(entry, dict) and "Cohort" in entry]
    return [made for entry in several for made in pipelines(entry)] or [preprocessing]
