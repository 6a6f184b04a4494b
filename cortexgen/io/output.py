"""Output folders: new ones, or those that the same command made with the same settings."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from cortexgen.errors import UserError
from cortexgen.io.atomic import remove_leftovers
from cortexgen.io.bids import IGNORE, anat, describe_dataset, generated_by, read_tsv
from cortexgen.io.paths import hidden, resolved, visible

SUBJECT = re.compile(r"sub-.+|\d{3}_S_\d{4,5}|NCANDA_S\d{5}")  # folders of subjects, in any of the layouts
ENDING = "_desc-{}_metrics.json"  # of a scan's record of some kind
SHOWN = 3  # names in an error
RUN_TABLES = {name: ["participant_id"] for name in ("participants.tsv", "registration.tsv", "volumes.tsv")}
ARITHMETIC = ("device", "precision", "threads", "micro_batch")  # what bytes depend on; a folder must say it
Tables = Mapping[str, Iterable[str]]
Ours = Callable[[Path], bool]  # whether a folder is the command's own; raises UserError if it has other settings


def claim(root: Path, ours: Ours, inputs: Iterable[Path] = (), tables: Tables | None = None) -> bool:
    """Make an output folder, or go on in one of the same command, without what killed runs have left unfinished there.

    Arguments:
        ours: whether a folder that is there is the command's own.
        inputs: files and folders that the command reads.
        tables: columns that the command's tables must have, by name, where they are there.

    Returns:
        Whether the folder is new.

    Raises:
        UserError: as `examine`, and if it can't be written to.
    """
    new = examine(root, ours, inputs, tables)
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=root) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        raise UserError(f"{root}: cannot write there ({error.strerror or error})") from error
    remove_leftovers(root)
    return new


def examine(root: Path, ours: Ours, inputs: Iterable[Path] = (), tables: Tables | None = None) -> bool:
    """See that an output folder can be claimed, and touch nothing; arguments and answer are those of `claim`.

    Raises:
        UserError: if it is an input or in one's folder of a subject, is no folder, holds what the command didn't make,
            or a table of the command that somebody has changed so that it can't be read any more.
    """
    root = Path(root)
    _apart(root, inputs)
    if root.is_symlink() and not root.exists():
        raise UserError(f"{root}: a link to nothing, expected a folder to write to")
    if root.exists() and not root.is_dir():
        raise UserError(f"{root}: cannot write there (it is a file, expected a folder)")
    new = not ours(root)
    found = contents(root)
    if new and found:
        some = ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
        raise UserError(f"{root}: not empty, holds other files ({some}); choose a new or empty folder")
    for name, columns in (tables or {}).items():
        _check_table(root / name, columns)
    for path in visible(root, "sub-*/sub-*_sessions.tsv") if tables else ():
        _check_table(path, ["session_id"])
    return new


def contents(root: Path) -> list[str]:
    """Names of what a folder holds; hidden files don't count, but somebody else's `.bidsignore`."""
    try:
        found = sorted(root.iterdir()) if root.is_dir() else []
        return [p.name for p in found if not hidden(p) or (p.name == ".bidsignore" and p.read_text() != IGNORE)]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{root}: cannot be read ({error})") from None


def same_dataset(root: Path, made_by: Mapping[str, Any]) -> bool:
    """Whether a folder was made by a command and settings, as `claim` asks.

    An option that an earlier version of cortexgen didn't have, and so didn't note, is no difference, but for those of
    `ARITHMETIC`.

    Raises:
        UserError: if it was made by another program or command, or with other settings.
    """
    found = generated_by(root)
    if found is None:
        return False
    made_by = json.loads(json.dumps(made_by, default=str))
    if found.get("Name") != "cortexgen" or not made_by.keys() <= found.keys():
        by = found.get("Command") or found.get("Description") or found.get("Name") or "another program"
        raise UserError(f"{root}: holds something else, made by {by}; choose another folder")
    old, new = (p if isinstance(p := side.get("Parameters"), Mapping) else {} for side in (found, made_by))
    missing = next((key for key in new if key in ARITHMETIC and key not in old), None)
    if missing:
        raise UserError(
            f"{root}: was begun by an earlier version ({found.get('Version', 'unknown')}), which did not record its "
            f"{missing}; choose another folder"
        )
    pairs = [(key, found[key], value) for key, value in made_by.items() if key != "Parameters"]
    pairs += [(key, old[key], value) for key, value in new.items() if key in old]
    for key, theirs, ours in pairs:
        if theirs != ours:
            theirs, ours = _first_difference(theirs, ours)
            raise UserError(
                f"{root}: holds another run, with {key} {_short(theirs)}; this one has {_short(ours)}; "
                "choose another folder"
            )
    return True


def open_run(root: Path, name: str, made_by: Mapping[str, Any], inputs: Iterable[Path] = ()) -> None:
    """Make a folder for registrations or brains, or go on in one of the same weights and settings.

    Arguments:
        name: of the data set.
        made_by: what results depend on: "Weights", "Template" and, by name, the options in "Parameters".
        inputs: files and folders that are read.

    Raises:
        UserError: as `claim`; the first thing that differs is named.
    """
    made_by = {"Description": name, **made_by}
    if claim(root, lambda path: same_dataset(path, made_by), inputs, RUN_TABLES):
        program = Path(sys.argv[0]).name in ("cortexgen", "__main__.py")
        command = " ".join(["cortexgen", *sys.argv[1:]]) if program else ""
        describe_dataset(root, name, {**made_by, "Command": command})


def examine_run(root: Path, name: str, made_by: Mapping[str, Any] | None = None, inputs: Iterable[Path] = ()) -> None:
    """See that `open_run` could take a folder, without `made_by` before weights and settings are known.

    Raises:
        UserError: as `examine`.
    """
    examine(root, lambda path: same_dataset(path, {"Description": name, **(made_by or {})}), inputs, RUN_TABLES)


def record_path(root: Path, scan: str, kind: str) -> Path:
    """Where a scan's record is kept; written last, so it says that the scan is done."""
    return anat(root, scan) / f"{scan}{ENDING.format(kind)}"


def records(root: Path, kind: str) -> dict[str, dict[str, Any]]:
    """The record of each scan that a folder holds, by its name; damaged ones are left out."""
    ending = ENDING.format(kind)
    places = [visible(root, f"{folders}/anat/*{ending}") for folders in ("sub-*", "sub-*/ses-*")]
    found = {path.name.removesuffix(ending): read_record(path) for paths in places for path in paths}
    return {name: found[name] for name in sorted(found, key=lambda n: (len(n), n)) if found[name]}


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def settings(path: Path) -> dict[str, Any] | None:
    """The JSON object by which a command knows its folder; None where there is no such file.

    Raises:
        UserError: if it can't be read.
    """
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a record of cortexgen that can be read ({error})") from None


def _apart(root: Path, inputs: Iterable[Path]) -> None:
    """See that an output folder is no input, and doesn't lie among a subject's files."""
    place = resolved(root)
    for path in map(Path, inputs):
        source = resolved(path)
        if place == source:
            raise UserError(f"{root}: is what is read; choose a new folder to write to")
        if place in source.parents:
            raise UserError(f"{path}: lies in {root}, which is written to; choose a new folder to write to")
        if source in place.parents:
            inside = next((part for part in place.relative_to(source).parts if SUBJECT.fullmatch(part)), None)
            if inside:
                raise UserError(f"{root}: lies in {inside} of {path}, which is read; choose a new folder elsewhere")


def _check_table(path: Path, columns: Iterable[str]) -> None:
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected a table; choose another folder to write to")
    if not path.is_file():
        return
    found = read_tsv(path)[0]
    missing = [name for name in columns if name not in found]
    if missing:
        raise UserError(
            f"{path}: expected a column {' and '.join(missing)}, found {', '.join(map(str, found))}; "
            "repair or remove the table, or choose another folder"
        )


def _first_difference(a: Any, b: Any) -> tuple[Any, Any]:
    """Of two lists the first items that differ; others as they are."""
    if isinstance(a, list) and isinstance(b, list):
        return next((x, y) for x, y in zip_longest(a, b) if x != y)
    return a, b


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
