"""Volumes that are decoded once, in memory or on disk for cohorts that don't fit there; and what they add up to."""

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io.atomic import atomic, remove_leftovers, write_array

Caching = Literal["memory", "disk", "none"]


class Cache:
    """Where decoded volumes are kept; this one keeps none. What `get` returns must not be written to."""

    def get(self, source: Path, decode: Callable[[], Tensor]) -> Tensor:
        """The volume that `decode` makes of the file `source`."""
        return decode()

    def __contains__(self, source: Path) -> bool:
        """Whether the file needn't be decoded."""
        return False


class MemoryCache(Cache):
    """Keeps volumes in this process; loader processes that are forked from it share them."""

    def __init__(self) -> None:
        self._volumes: dict[Path, Tensor] = {}

    def get(self, source: Path, decode: Callable[[], Tensor]) -> Tensor:
        if source not in self._volumes:
            self._volumes[source] = decode()
        return self._volumes[source]

    def __contains__(self, source: Path) -> bool:
        return source in self._volumes


class DiskCache(Cache):
    """Keeps volumes as .npy files that any number of processes read and write.

    An entry's name is a hash of its source's path, size and time of change, and of the recipe: what has changed is
    decoded anew. Entries come whole or not at all; one that can't be read is made again.

    Arguments:
        folder: made if it isn't there.
        recipe: all that a volume depends on besides its source, in plain types.

    Raises:
        UserError: if the folder can't be written to.
    """

    def __init__(self, folder: Path, recipe: object) -> None:
        self.folder, self.recipe = Path(folder), recipe
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cache_dir: cannot make {folder} ({error.strerror})") from None
        if not os.access(self.folder, os.W_OK):
            raise UserError(f"cache_dir: {folder} cannot be written to")
        remove_leftovers(self.folder, deep=False)

    def _entry(self, source: Path) -> Path:
        path = Path(source).resolve()
        found = path.stat()
        key = json.dumps([str(path), found.st_size, found.st_mtime_ns, self.recipe])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

    def get(self, source: Path, decode: Callable[[], Tensor]) -> Tensor:
        if not Path(source).is_file():
            return decode()  # which says so
        entry = self._entry(source)
        try:
            return torch.from_numpy(np.load(entry))
        except (OSError, ValueError, EOFError):  # not there, or damaged
            volume = decode()
        try:
            write_array(entry, volume.numpy())
        except OSError as error:
            warnings.warn(f"cache_dir: {self.folder}: {error.strerror}; images are decoded each time", stacklevel=2)
        return volume

    def __contains__(self, source: Path) -> bool:
        return Path(source).is_file() and self._entry(source).is_file()


def cache_root() -> Path:
    """Where the caches of all cohorts are by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cortexgen"


def cache_folder(*roots: Path) -> Path:
    """Where volumes of cohorts are cached by default: `cortexgen/NAMES-HASH` in $XDG_CACHE_HOME or ~/.cache."""
    places = sorted(Path(root).resolve() for root in roots)
    digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()
    return cache_root() / f"{'+'.join(place.name for place in places):.60}-{digest[:8]}"


def open_cache(kind: Caching | bool, folder: Path, recipe: object) -> Cache:
    """A cache; True is "memory" and False is "none". Errors are those of `DiskCache`."""
    if kind == "disk":
        return DiskCache(folder, recipe)
    return MemoryCache() if kind in ("memory", True) else Cache()


def _alone(path: Path) -> AbstractContextManager[Any]:
    """Waits until no other process has the same file; the system lets the next one in if a process dies."""
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):  # not a Unix, or no such locks there: several processes do the same work
        return nullcontext()
    return file


def remember(folder: Path, name: str, key: object, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, made once for a key by one process and read from a file by every other, and ever after.

    Tensors are mapped from the file, so that processes share their memory. The others wait for a lock of the file: a
    barrier of the processes of a training ends after half an hour.

    Arguments:
        folder: made if it isn't there; where it can't be written to, `make` is called each time, with a warning.
        name: what the file's name starts with.
        key: all that the result depends on, in plain types.
        make: gives tensors and plain types by name.
    """
    path = Path(folder, f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.pt")

    def read() -> dict[str, Any]:
        return torch.load(path, mmap=True, weights_only=True)

    with _alone(path.with_suffix(".lock")):
        try:
            return read()
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):  # not there, or damaged
            made = make()
        try:
            with atomic(path) as temporary:
                torch.save(made, temporary)
        except (OSError, RuntimeError) as error:
            warnings.warn(f"cache_dir: {folder}: {error}; {name} are computed each time", stacklevel=2)
            return made
        return read()
