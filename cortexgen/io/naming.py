"""What files say of themselves by their names: whether they are images, and whose."""

import re
from pathlib import Path

from cortexgen.io.paths import hidden, label

LONGEST = 128  # characters of a scan's name; files' names, of 255 bytes at most, add up to 90


def named_after(path: Path) -> tuple[str, str]:
    """Labels of subject and session that a file's name gives; the session is "" where it names none.

    "sub-01_ses-2_T1w.nii.gz" is 01 and 2, "old brain.nii" is oldbrain.
    """
    stem = re.sub(r"\.(nii|img|hdr)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    found = re.match(r"sub-([A-Za-z0-9]+)(?:_ses-([A-Za-z0-9]+))?(_|$)", stem)
    return (found[1], found[2] or "") if found else (label(stem), "")


def is_nifti(path: Path) -> bool:
    """Judged by the name; hidden files are none."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and not hidden(path)


def is_analyze(path: Path) -> bool:
    """Whether the name is of one file of a pair, Analyze 7.5's or NIfTI's."""
    return path.name.lower().endswith((".img", ".hdr", ".img.gz", ".hdr.gz")) and not hidden(path)


def unreadable(path: Path) -> str:
    """Why there is nothing behind a path, "" if there is."""
    why = "a link to nothing (has its content been downloaded?)" if path.is_symlink() else "no such file"
    return "" if path.exists() else f"{path}: {why}"


def no_file(path: Path) -> str:
    """Why a path is not that of a file, "" if it is."""
    return unreadable(path) or ("" if path.is_file() else f"{path}: a folder or device, expected a file")


def too_long(name: str) -> str:
    """Why files can't be named after a scan, "" if they can."""
    if len(name) <= LONGEST:
        return ""
    return f"{name:.40}...: its name has {len(name)} characters, expected {LONGEST} or fewer; rename it"
