"""Registered scans on disk: of which files each was made, its row of registration.tsv, and its side of the split."""

import glob
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cortexgen.data.cohort import Scan, write_participants
from cortexgen.errors import UserError
from cortexgen.io import write_json
from cortexgen.io.bids import Row, read_tsv, source_hash, write_tsv
from cortexgen.io.naming import too_long
from cortexgen.io.output import read_record, record_path, records
from cortexgen.io.participants import read_covariates
from cortexgen.io.paths import labels_of
from cortexgen.io.tables import COHORT

TABLE = "registration.tsv"
KIND = "registration"  # of record
WRITTEN = ["mode-image_xfm", "desc-whole_xfm", "desc-velocity_field", "desc-logjac_map"]
WRITTEN += ["desc-warped_dseg", "desc-fitted_dseg"]
WRITTEN += [f"desc-{what}_T1w" for what in ("warped", "continuous", "synthesis", "whole")]


class Record:
    """A scan's row, with the hashes of the files that its results were made of.

    Arguments:
        root: the output folder.

    Raises:
        UserError: if the scan has a problem, files can't be named after it, or its files can't be read.
    """

    def __init__(self, root: Path, scan: Scan) -> None:
        scan.check()
        if problem := too_long(scan.name):
            raise UserError(problem)
        self.path, self.scan = record_path(root, scan.name, KIND), scan
        sources = {"image": scan.image, "labels": scan.labels}
        self.sources = {what: source_hash(path) for what, path in sources.items() if path is not None}

    def done(self) -> Row | None:
        """The row of a scan that is there, made of the same files.

        Raises:
            UserError: if another scan's is there, on a disk that doesn't tell upper from lower case.
        """
        found = _rowed(read_record(self.path))
        name = found["Row"].get("participant_id", self.scan.name)
        if name != self.scan.name:
            raise UserError(f"{self.path}: is of {name}, not {self.scan.name}; rename one of them")
        return found["Row"] if found.get("Sources") == self.sources else None

    def keep(self, row: Row) -> None:
        """Say that the scan is done."""
        write_json(self.path, {"Row": row, "Sources": self.sources})

    def remove(self) -> bool:
        """Take away what was written for the scan, what says that it is done first; returns whether it was done."""
        was_done, folder = self.path.is_file(), self.path.parent
        self.path.unlink(missing_ok=True)
        name = glob.escape(self.scan.name)
        for path in [path for what in WRITTEN for path in folder.glob(f"{name}_*{what}.*")]:
            path.unlink(missing_ok=True)
        for empty in (folder, *folder.parents)[: len(self.scan.name.split("_")) + 1]:
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
        return was_done


def kept_row(root: Path, scan: Scan, make: Callable[[], Row], side: str | None = None) -> Row:
    """Keep the row that `make` returns after writing a scan's results; those of the same files are taken as they are.

    What was made of other files is removed first; where something goes wrong, nothing is left.

    Arguments:
        side: of the split, where there is one.

    Errors are those of `Record`.
    """
    record = Record(root, scan)
    done = record.done()
    if done is not None:
        return done
    if record.remove():
        why = "what was there was made of another image or labels, or by an earlier version"
        warnings.warn(f"{scan.name}: {why}; it is registered anew", stacklevel=2)
    try:
        row: Row = {"participant_id": scan.name} | _cohort_of(scan) | ({} if side is None else {"split": side}) | make()
        record.keep(row)
    except BaseException:
        record.remove()
        raise
    return row


def write_registrations(
    root: Path, scans: Sequence[Scan], failures: Mapping[str, str], split: Mapping[str, str] | None = None
) -> None:
    """Join the rows of these scans, and of those that earlier runs left here, to registration.tsv.

    Also writes participants.tsv of those that are done.

    Arguments:
        failures: why a scan couldn't be registered, by name.
        split: side of each subject, where there is a split.
    """
    there, now = registered_rows(root), {scan.name: scan for scan in scans}
    there = {str(row.get("participant_id")): row for row in _listed(root) if not _is_done(row)} | there
    failed = {name: {"participant_id": name, "status": f"failed: {why}"} for name, why in failures.items()}
    earlier = [row for name, row in there.items() if name not in now and name not in failed]
    done = [there[name] for name in now if name in there and name not in failed and _is_done(there[name])]
    table = [*earlier, *done, *failed.values()]
    sides = {subject: {"split": side} for subject, side in (split or {}).items()}
    cohorts = {scan.name: _cohort_of(scan) for scan in scans}
    known = [(row, str(row["participant_id"])) for row in table]
    if table:
        whole = [row | cohorts.get(name, {}) | sides.get(name.split("_")[0], {}) for row, name in known]
        write_tsv(root / TABLE, whole)
    names = [str(row["participant_id"]) for row in table if _is_done(row)]
    if names:
        write_participants(root, _people(root, sorted(names), now))


def _cohort_of(scan: Scan) -> Row:
    """What tables say of a scan whose cohort is known."""
    return {COHORT: scan.covariates[COHORT]} if scan.covariates.get(COHORT) is not None else {}


def _people(root: Path, names: Sequence[str], now: Mapping[str, Scan]) -> list[Scan]:
    """Scans with their covariates: of this run, else as the folder's tables have them; columns added there stay."""
    before = read_covariates(root, [labels_of(name) for name in names], warn=False)
    rows = [row | (now[name].covariates if name in now else {}) for name, row in zip(names, before, strict=True)]
    return [Scan(name, name.split("_")[0], root, None, row) for name, row in zip(names, rows, strict=True)]


def _listed(root: Path) -> list[Row]:
    path = root / TABLE
    return read_tsv(path) if path.is_file() and path.read_bytes().strip() else []


def registered_rows(root: Path) -> dict[str, Row]:
    """The rows of the scans that are done in a folder, by scan."""
    kept = records(root, KIND)
    found = [_rowed(kept[name])["Row"] for name in sorted(kept, key=lambda name: name.split("_"))]
    return {str(row["participant_id"]): row for row in found if "participant_id" in row}


def _is_done(row: Row) -> bool:
    return row.get("status") == "ok"


def _rowed(record: dict[str, Any]) -> dict[str, Any]:
    """A record as it is kept now; one that an earlier version wrote is a row alone, without sources."""
    record = record if "Row" in record else {"Row": record}
    return record if isinstance(record["Row"], dict) else {"Row": {}}


def recorded_sides(root: Path) -> dict[str, set[str]]:
    """The sides of the split that each subject is on; it is one unless something is wrong.

    registration.tsv says so, and what is kept of each scan, should it not be in there (yet).
    """
    listed = [row for row in _listed(root) if row.get("split") is not None]
    names = {row.get("participant_id") for row in listed}
    sides: dict[str, set[str]] = {}
    for row in [*listed, *(row for name, row in registered_rows(root).items() if name not in names)]:
        if row.get("split") is not None:
            sides.setdefault(str(row.get("participant_id")).split("_")[0], set()).add(str(row["split"]))
    return sides
