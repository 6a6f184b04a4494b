"""Names that strangers gave, and the folder that nothing is written or removed outside of."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from cortexgen.errors import UserError

SCAN = re.compile(r"sub-[A-Za-z0-9]+(_ses-[A-Za-z0-9]+)?")
NAME = re.compile(r"[^.~/\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*")
STRAYS = {"thumbs.db", "desktop.ini"}  # what Windows leaves in folders; of others, hidden files


def label(text: str) -> str:
    """Letters and digits of a text, as BIDS labels are; accents dropped, a text that has none of them hashed."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    found = re.sub(r"[^A-Za-z0-9]", "", plain)
    return found or (hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8] if text else "")


def scan_name(folders: Iterable[str]) -> str:
    """The name of a scan in folders "sub-01" and "ses-1", "sub-01_ses-1"; what no BIDS label may hold is dropped."""
    parts = (folder.partition("-") for folder in folders)
    return "_".join(f"{key}-{label(value)}" for key, _, value in parts)


def name_of(subject: str, session: str = "") -> str:
    """The name of a scan by its labels: "sub-01" or, where there is a session, "sub-01_ses-1"."""
    return f"sub-{subject}_ses-{session}" if session else f"sub-{subject}"


def labels_of(name: str) -> tuple[str, str]:
    """Labels of subject and session in the name of a scan; the session is "" where it names none."""
    subject, _, session = name.removeprefix("sub-").partition("_ses-")
    return subject, session


def check_scan_name(name: str) -> str:
    """The name of a scan, if it is one.

    Raises:
        UserError: if it is not like "sub-01" or "sub-01_ses-1".
    """
    if not SCAN.fullmatch(name):
        raise UserError(f"{name!r}: expected a name like sub-01 or sub-01_ses-1, of letters and digits")
    return name


def is_file_name(text: str) -> bool:
    """Whether a text can be the name of a visible file or folder on any system."""
    return len(text.encode("utf-8", "surrogateescape")) <= 200 and bool(NAME.fullmatch(text))


def within(root: Path, *parts: str) -> Path:
    """The path of a file below `root`, of one name a part.

    A link to a folder counts as the place that it leads to; the file itself may be one, for writing replaces it and
    removing takes it away.

    Raises:
        UserError: if a part is no name of a file, or the path leaves `root`.
    """
    folder_within(root, *parts[:-1])
    return _joined(root, parts)


def folder_within(root: Path, *parts: str) -> Path:
    """As `within`, for a folder to write to."""
    path = _joined(root, parts)
    top, place = resolved(root), resolved(path)
    if top != place and top not in place.parents:
        raise UserError(f"{path}: leads to {place}, outside of {root}")
    return path


def resolved(path: Path) -> Path:
    """Where a path leads to.

    Raises:
        UserError: if links lead in a circle, or it is none.
    """
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: cannot be followed ({error})") from None


def _joined(root: Path, parts: Sequence[str]) -> Path:
    if any(part in ("", ".", "..") or re.search(r"[/\\\0]", part) for part in parts):
        raise UserError(f"{'/'.join(parts)!r}: not a name that can be written under {root}")
    return Path(root, *parts)


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """What fits a pattern in a folder, sorted, without hidden files: unfinished ones, macOS's "._" and ".DS_Store".

    Raises:
        UserError: if the pattern is none.
    """
    try:
        return sorted(path for path in Path(folder).glob(pattern) if not hidden(path))
    except (NotImplementedError, ValueError) as error:
        raise UserError(f"{pattern!r}: not a pattern of file names ({error})") from None


def hidden(path: Path) -> bool:
    """Whether a file is one that nobody means, by its name."""
    return path.name.startswith(".") or path.name.lower() in STRAYS
