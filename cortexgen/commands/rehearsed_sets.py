"""`evaluate --dry_run`: both sides' brains, or pairs of images, are read, and nothing is measured or written."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from cortexgen.commands.rehearsal import Check, rehearse
from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.evaluation.pairs import NO_REGISTRATION, Pairs
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store
from cortexgen.io.paths import folder_within


def rehearse_sets(
    real: BrainSet, train: BrainSet | None, sets: Mapping[str, Callable[[], BrainSet]], out: Path
) -> None:
    """Of the brains of all sets, which of them were read before.

    Arguments:
        sets: what finds each, by name.

    Raises:
        UserError: if a set or a brain can't be used.
    """
    checks, failures = _checks("real", real, out, "real"), dict[str, str]()
    if train:
        checks |= _checks("training", train, out, "training")
    for name, find in sets.items():
        try:
            checks |= _checks(name, find(), out, f"set-{name}")
        except UserError as error:
            failures[name] = str(error)
    rehearse("evaluate", "brain", checks, failures)


def _checks(name: str, brains: BrainSet, out: Path, folder: str) -> dict[str, Check]:
    store = Store(name, brains, folder_within(out, "work", folder))

    def check(scan: Scan) -> bool:
        if scan.name in brains.problems:
            raise UserError(brains.problems[scan.name])
        if store.has(scan):
            return True
        brains.read(scan)
        return False

    return {f"{name}/{scan.name}": partial(check, scan) for scan in brains.scans}


def rehearse_pairs(pairs: Pairs) -> None:
    """Of registered images and those that they were registered to.

    Raises:
        UserError: if one can't be used.
    """

    def check(method: str, scan: Scan) -> bool:
        pairs.files(method, scan)
        pairs.read(method, scan, pairs.read_fixed(scan))
        return False

    methods = [method for method in pairs.methods if method != NO_REGISTRATION]
    checks = {f"{method}/{scan.name}": partial(check, method, scan) for method in methods for scan in pairs.scans}
    rehearse("evaluate", "pair", checks, pairs.fixed.problems)
