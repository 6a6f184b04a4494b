"""Files that are there whole or not at all, and what writers that were killed have left of them."""

import io
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 255  # bytes of a file's name
OLD = 24 * 3600.0  # seconds without a change, after which nobody writes a file any more
STARTED = time.time()


def temporary_name(name: str = "") -> str:
    """The name under which this process writes a file; the ending of its own name is kept."""
    prefix = f".tmp-{platform.node()}-{os.getpid()}-"
    while len((prefix + name).encode("utf-8", "surrogateescape")) > LONGEST and name:
        name = name[1:]
    return prefix + name


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it to `path` at the end; removed on any error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # what a user knows
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; what of a file's name is no UTF-8 is written as `\\udcff`."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file atomically; numpy alone would not say that a disk is full."""
    content = io.BytesIO()
    np.save(content, array)
    with atomic(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def remove_leftovers(root: Path, deep: bool = True) -> None:
    """Remove the temporary files and folders under `root` whose writers are gone; links are not followed.

    Arguments:
        deep: look in the folders below it, too.
    """
    for place, folders, files in os.walk(root):
        left = [name for name in (*folders, *files) if _left_over(Path(place, name))]
        for name in left:
            path = Path(place, name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()
        folders[:] = [name for name in folders if deep and name not in left]


def _left_over(path: Path) -> bool:
    """Whether a temporary file's writer is gone: a dead process of this machine; elsewhere, one silent for a day."""
    if not path.name.startswith(".tmp-"):
        return False
    try:
        changed = path.lstat().st_mtime
    except OSError:
        return False
    if time.time() - changed > OLD:
        return True
    found = re.match(rf"\.tmp-{re.escape(platform.node())}-(\d+)-", path.name)
    if not found:
        return False
    process = int(found[1])
    return changed < STARTED - 2 if process == os.getpid() else not _alive(process)


def _alive(process: int) -> bool:
    try:
        if os.name != "nt":  # where the signal 0 ends it
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
