"""A cohort's people on two sides: those that everything is trained on, and those that it is measured on."""

import os
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from cortexgen.data.cohort import Scan, read_cohort, split_subjects, write_participants
from cortexgen.data.cohorts import Roots, all_scans, folders_of, read_cohorts
from cortexgen.errors import UserError

SHARED = ("dataset_description.json", "participants.json", "dseg.tsv", "dseg.json")
SHARE = 0.2  # of the subjects, that are held out unless it is said who
LEAST = 2  # subjects of a side


class Sides(NamedTuple):
    """Folders of links, one a cohort and side, and how many subjects each side has."""

    train: list[Path]
    held_out: list[Path]
    trained: int
    measured: int


class Division(NamedTuple):
    """A cohort's scans, and the subjects of it that are held out."""

    root: Path
    scans: list[Scan]
    held_out: set[str]

    def side(self, held_out: bool) -> list[Scan]:
        """Those of the subjects that are held out, or of the others."""
        return [scan for scan in self.scans if (scan.subject in self.held_out) == held_out]


def divide(roots: Roots, held_out: Sequence[str] = ()) -> dict[str, Division]:
    """The scans of each cohort, by its name, and who of them is held out; an id is on one side in all cohorts.

    Arguments:
        roots: one cohort or several, BIDS derivatives.
        held_out: names of subjects, or patterns such as `*0`; a fifth of each cohort unless given.

    Raises:
        UserError: if a name fits nobody, or too few subjects are left on a side.
    """
    found: dict[str, Division] = {}
    fitting, sides = set[str](), dict[str, bool]()  # whether an id is held out, as the first cohort that has it says
    for name, root in folders_of(roots).items():
        scans = [scan for scan in read_cohort(root) if not scan.problem]
        chosen = _held_out(scans, held_out, fitting)
        for scan in scans:
            sides.setdefault(scan.subject, scan.subject in chosen)
        found[name] = Division(root, scans, {scan.subject for scan in scans if sides[scan.subject]})
    if unknown := [pattern for pattern in held_out if pattern not in fitting]:
        raise UserError(f"--held_out: {', '.join(unknown)} fits no subject")
    for side, number in _numbers(found).items():
        if number < LEAST:
            raise UserError(f"--held_out: {number} subject(s) on the side {side}, expected {LEAST} or more")
    return found


def _numbers(division: Mapping[str, Division]) -> dict[str, int]:
    """Subjects on each side."""
    sides = {"train": False, "held-out": True}
    return {
        side: sum(len({scan.subject for scan in each.side(held_out)}) for each in division.values())
        for side, held_out in sides.items()
    }


def part(division: Mapping[str, Division], out: Path) -> Sides:
    """Lay each cohort out twice in a folder, as links to the subjects of either side with their participants.tsv."""
    sides: dict[bool, list[Path]] = {False: [], True: []}
    for name, each in division.items():
        for held_out, folders in sides.items():
            if kept := each.side(held_out):  # a cohort may be on one side alone
                folders.append(
                    _lay(kept, each.root, out / ("held-out" if held_out else "train") / name.replace("/", "-"))
                )
    numbers = _numbers(division)
    return Sides(sides[False], sides[True], numbers["train"], numbers["held-out"])


def _held_out(scans: Sequence[Scan], patterns: Sequence[str], fitting: set[str]) -> set[str]:
    """The subjects that patterns fit, which are added to `fitting`."""
    subjects = [scan.subject for scan in scans]
    if not patterns:
        sides = split_subjects(subjects, val=0.0, test=SHARE)
        return {subject for subject, side in sides.items() if side == "test"}
    chosen = set()
    for pattern in patterns:
        found = {s for s in subjects if fnmatchcase(s.removeprefix("sub-"), pattern.removeprefix("sub-"))}
        chosen |= found
        fitting |= {pattern} if found else set()
    return chosen


def _lay(scans: Sequence[Scan], root: Path, folder: Path) -> Path:
    """A data set of links to some subjects' folders."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for scan in scans:
        place, source = folder / scan.subject, root / scan.image.relative_to(root).parts[0]
        if not place.is_symlink():
            place.symlink_to(source.resolve(), target_is_directory=True)
    for name in SHARED:
        if (root / name).is_file():
            shutil.copy(root / name, folder / name)
    write_participants(folder, scans)
    return folder


def without_held_out(registered: Path, sides: Sides, out: Path) -> Path:
    """Registrations of the people to train on alone, in `out`; files take no room where the disk knows hard links.

    Raises:
        UserError: if there are none of theirs.
    """
    cohorts = read_cohorts(folders_of(sides.train), read_cohort)
    trained = {scan.subject for scan in all_scans(cohorts)}  # as `register` calls them
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for path in sorted(registered.iterdir()):
        if path.is_dir() and (not path.name.startswith("sub-") or path.name in trained):
            shutil.copytree(path, out / path.name, copy_function=_linked)
        elif path.is_file():
            shutil.copy(path, out / path.name)
    if not any(out.glob("sub-*")):
        raise UserError(f"--registered: {registered} holds none of the {sides.trained} people to train on")
    return out


def _linked(source: str, place: str) -> None:
    try:
        os.link(source, place)
    except OSError:  # another disk, or one that knows no links
        shutil.copy(source, place)
