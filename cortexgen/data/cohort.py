"""A cohort on disk: BIDS derivatives, read subject by subject."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from cortexgen.errors import UserError
from cortexgen.io.bids import Row, scan_folders, write_tsv
from cortexgen.io.naming import is_nifti, named_after, no_file
from cortexgen.io.participants import read_covariates
from cortexgen.io.paths import labels_of, name_of, scan_name, visible, within

UNUSABLE = "no-image-that-can-be-used"  # name of the image of a scan with a problem
WARPED = "_desc-warped_"  # in the names of what was made beside an image


@dataclass(frozen=True)
class Scan:
    """One image of a subject.

    Attributes:
        name: "sub-01", or "sub-01_ses-02" where there are sessions.
        subject: "sub-01".
        image: its file, a T1w or a field.
        labels: its dseg, if there is one.
        covariates: its row of participants.tsv, and of its subject's sessions.tsv, without the names.
        problem: why it can't be used, "" if it can; a cohort lists it and goes on with the others.
    """

    name: str
    subject: str
    image: Path
    labels: Path | None = None
    covariates: Row = field(default_factory=dict)
    problem: str = ""

    def check(self) -> None:
        """Raise the problem as a UserError, if there is one."""
        if self.problem:
            raise UserError(self.problem)


def write_participants(root: Path, scans: Sequence[Scan]) -> None:
    """Write participants.tsv, and a sessions.tsv for each subject that has sessions.

    What differs between the sessions of any subject (an age) is in sessions.tsv alone where there are several.
    """
    subjects: dict[str, list[Scan]] = {}
    for scan in scans:
        subjects.setdefault(scan.subject, []).append(scan)
    varying = {
        key
        for members in subjects.values()
        for scan in members
        for key in scan.covariates
        if scan.covariates[key] != members[0].covariates.get(key)
    }
    rows = []
    for subject, members in subjects.items():
        shared = {k: v for k, v in members[0].covariates.items() if k not in varying or len(members) == 1}
        rows.append({"participant_id": subject, **shared})
        sessions = [
            {"session_id": scan.name.removeprefix(f"{subject}_"), **scan.covariates}
            for scan in members
            if scan.name != subject
        ]
        if sessions:
            write_tsv(within(root, subject, f"{subject}_sessions.tsv"), sessions, exact=True)
    write_tsv(Path(root, "participants.tsv"), rows, exact=True)


def read_cohort(root: Path, image: str = "*_T1w.nii*", labels: str = "*_dseg.nii*", warn: bool = True) -> list[Scan]:
    """The scans under `sub-*/[ses-*/]anat`, sorted by name; what is wrong with one of them is its `problem`.

    Arguments:
        root: a BIDS (derivative) data set.
        image, labels: file name patterns; each must fit one file of a scan. Upper or lower case matters only where a
            file fits as it is.
        warn: of scans that participants.tsv doesn't have.

    Raises:
        UserError: if the folder is missing, holds no such image, or none that can be used.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    scans = []
    for folder, (name, problem) in scan_folders(root).items():
        parts = folder.parent.relative_to(root).parts
        images, dsegs = _fitting(folder, image), own_labels(_fitting(folder, labels))
        if not images:
            continue
        name = "_".join(parts) if problem else name
        scan = Scan(name, name.split("_")[0], images[0], dsegs[0] if dsegs else None)
        problem = problem or no_file(images[0])
        for found, pattern in ((images, image), (dsegs, labels)):
            if len(found) > 1 and not problem:
                names = ", ".join(p.name for p in found[:3])
                problem = f"{folder}: {len(found)} files fit {pattern!r} ({names}); give a pattern that fits one"
        scans.append(_with_problem(scan, problem))
    if not scans:
        raise UserError(f"{root}: no image sub-*/[ses-*/]anat/{image} in it")
    places = [(s.subject.removeprefix("sub-"), s.name.removeprefix(s.subject).removeprefix("_ses-")) for s in scans]
    rows = read_covariates(root, places, warn)
    return usable(root, [replace(scan, covariates=row) for scan, row in zip(scans, rows, strict=True)])


def _fitting(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that fit a pattern, in any case if none fits as it is; hidden ones don't."""
    shown = visible(folder)
    exact = [p for p in shown if fnmatchcase(p.name, pattern)]
    return exact or [p for p in shown if fnmatchcase(p.name.lower(), pattern.lower())]


def own_labels(labels: list[Path]) -> list[Path]:
    """Of label maps, those that `generate --warped-labels` didn't write beside a brain's own."""
    return [p for p in labels if WARPED not in p.name] or labels


def _with_problem(scan: Scan, problem: str) -> Scan:
    """A scan that can't be used if there is a problem: its image is then none of its files, so that nobody takes it."""
    return replace(scan, image=scan.image.with_name(UNUSABLE), labels=None, problem=problem) if problem else scan


def usable(root: Path, scans: list[Scan]) -> list[Scan]:
    """The same scans.

    Raises:
        UserError: if none of them can be used.
    """
    if all(scan.problem for scan in scans):
        raise UserError(f"{root}: none of its {len(scans)} image(s) can be used; {scans[0].problem}")
    return scans


def has_subjects(path: Path) -> bool:
    """Whether a folder is laid out as a BIDS data set."""
    return any(p.is_dir() and not is_nifti(p) for p in Path(path).glob("sub-*"))


def find_scans(path: Path, image: str = "*_T1w.nii*", labels: str = "*_dseg.nii*") -> list[Scan]:
    """The images that a user means: one file, a folder of NIfTI files, or a BIDS (derivative) data set.

    A file outside a data set is named after its own name: "sub-01_ses-2_T1w.nii.gz" is "sub-01_ses-2", "old brain.nii"
    is "sub-oldbrain". What is wrong with one of several is its `problem`.

    Raises:
        UserError: if there is no such thing, or none that can be used.
    """
    path = Path(path)
    if has_subjects(path):
        return read_cohort(path, image, labels)
    files = sorted(p for p in path.iterdir() if is_nifti(p)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no NIfTI file in this folder")
    if not path.is_dir() and (missing := no_file(path)):
        raise UserError(missing if path.is_symlink() else f"{path}: no such file or folder")
    return usable(path, scans_of(files))


def choose_scans(scans: list[Scan], participants: Sequence[str], sessions: Sequence[str]) -> list[Scan]:
    """The scans of some subjects and sessions, with or without "sub-" and "ses-"; all where none are named.

    Raises:
        UserError: if a subject is unknown, or nothing is left.
    """
    subjects = _chosen([scan.subject for scan in scans], participants, "participants") if participants else set()
    labels = {session.removeprefix("ses-") for session in sessions}
    chosen = [scan for scan in scans if not subjects or scan.subject in subjects]
    chosen = [scan for scan in chosen if not labels or labels_of(scan.name)[1] in labels]
    if not chosen:
        raise UserError(f"sessions: no {', '.join(sorted(labels))} among the {len(scans)} scan(s)")
    return chosen


def scans_of(files: Iterable[Path]) -> list[Scan]:
    """Scans of files outside a data set, each named after its file; those of one name are one with a problem."""
    named: dict[tuple[str, str], list[Path]] = {}
    for file in files:
        named.setdefault(named_after(file), []).append(file)
    scans = []
    for (subject, session), found in named.items():
        name = name_of(subject, session)
        problem = no_file(found[0])
        if len(found) > 1:
            shown = ", ".join(p.name for p in found[:3]) + (", ..." if len(found) > 3 else "")
            problem = f"{found[0].parent}: {len(found)} files would be called {name} ({shown}): rename them"
        scans.append(_with_problem(Scan(name, f"sub-{subject}", found[0]), problem))
    return scans


def _chosen(subjects: Sequence[str], wanted: Sequence[str], what: str) -> set[str]:
    names = {scan_name([w if w.startswith("sub-") else f"sub-{w}"]) for w in wanted}
    missing = sorted(names - set(subjects))
    if missing:
        alike = [s for s in subjects if s.endswith(missing[0].removeprefix("sub-"))]
        hint = f"; did you mean {' or '.join(alike[:3])}?" if alike else ""
        raise UserError(f"{what}: {', '.join(missing)} not in the cohort of {len(subjects)} subjects{hint}")
    return names


def _count(share: float, total: int, what: str) -> int:
    if share < 0 or (share >= 1 and share != int(share)):
        raise UserError(f"{what}: expected a fraction below 1 or a whole number of subjects, got {share}")
    return int(share) if share >= 1 else round(share * total) or int(share > 0)


def split_subjects(
    subjects: Sequence[str],
    val: float = 0.1,
    test: float = 0.0,
    val_subjects: Sequence[str] | None = None,
    test_subjects: Sequence[str] | None = None,
    seed: int = 0,
    cohorts: Sequence[Mapping[str, str]] = (),
) -> dict[str, str]:
    """Put each subject on one side: "train", "val" or "test".

    Subjects are ranked by a hash of seed and name, so the order of the folder doesn't matter. Fractions are of each
    cohort, by the names in its own folder, so that another cohort beside it doesn't matter either.

    Arguments:
        subjects: names, repeats allowed (several scans of one subject stay together).
        val, test: a fraction below 1, or a number of subjects of all cohorts together.
        val_subjects, test_subjects: explicit names ("sub-01" or "01") instead.
        cohorts: of several, the name of each subject by that in its folder.

    Raises:
        UserError: if a name is unknown or on two sides, or nobody is left for training.
    """
    names = sorted(set(subjects))
    own = {now: was for called in cohorts for was, now in called.items()}
    ranked = sorted(names, key=lambda s: hashlib.sha256(f"{seed}:{own.get(s, s)}".encode()).hexdigest())
    members = [set(called.values()) for called in cohorts]
    groups = [[s for s in ranked if s in those] for those in members] or [ranked]
    given = {"test": test_subjects, "val": val_subjects}
    chosen = {side: _chosen(names, wanted, f"{side}_subjects") for side, wanted in given.items() if wanted}
    for side, share in (("test", test), ("val", val)):
        if side not in chosen:
            taken, chosen[side] = set[str]().union(*chosen.values()), set()
            for group in groups if share < 1 else [ranked]:
                rest = [s for s in group if s not in taken]
                chosen[side] |= set(rest[: _count(share, len(group), side)])
    in_test, in_val = chosen["test"], chosen["val"]
    both = sorted(in_val & in_test)
    if both:
        raise UserError(f"{', '.join(both)}: in the validation and in the test set")
    sides = {s: "test" if s in in_test else "val" if s in in_val else "train" for s in names}
    if "train" not in sides.values():
        raise UserError(f"no subject is left for training: {len(in_val)} of {len(names)} validate, {len(in_test)} test")
    return sides
