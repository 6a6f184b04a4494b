"""A set of brains on disk while it is evaluated: read once, then taken in any order, and what was measured of each."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cortexgen.errors import UserError, reason
from cortexgen.evaluation.reading import BrainSet
from cortexgen.io import Grid, write_json
from cortexgen.io.atomic import atomic, write_array
from cortexgen.io.bids import source_hash
from cortexgen.io.labels import label_type
from cortexgen.io.output import read_record
from cortexgen.io.paths import folder_within, visible, within

LEVELS = 65535  # of 16 bits: what [0, 1] is rounded to
Measures = dict[str, np.ndarray]


class Store:
    """The brains of a set, a folder each under `folder`.

    A run that was stopped goes on with what is there; what belongs to a file that has changed since is dropped.

    Attributes:
        name: of the set.
        brains: where they come from.
        names: of those that could be read, in order.
    """

    def __init__(self, name: str, brains: BrainSet, folder: Path) -> None:
        self.name, self.brains, self.folder = name, brains, Path(folder)
        self.names: list[str] = []

    @property
    def grid(self) -> Grid:
        """Of all volumes."""
        return self.brains.grid

    def __len__(self) -> int:
        return len(self.names)

    def fill(self) -> None:
        """Read every brain that isn't there yet; those that can't be read are left out, with their reasons."""
        self.names = []
        for scan in tqdm(self.brains.scans, desc=f"reading {self.name}", unit="brain", disable=None):
            if scan.name in self.brains.problems:
                continue
            folder = folder_within(self.folder, scan.name)
            try:
                scan.check()
                key = self._source(scan)
            except UserError as error:
                self.brains.problems[scan.name] = reason(error)
                continue
            record = read_record(folder / "source.json")
            if record.get("key") != key:
                shutil.rmtree(folder, ignore_errors=True)
            if record.get("key") != key or not (folder / "image.npy").is_file():
                try:
                    brain = self.brains.read(scan)
                except Exception as error:
                    self.brains.problems[scan.name] = reason(error)
                    continue
                write_array(folder / "image.npy", _packed(brain.image))
                if brain.labels is not None:
                    write_array(folder / "labels.npy", brain.labels.numpy().astype(label_type(int(brain.labels.max()))))
                write_json(folder / "source.json", {"key": key, "treatments": self.brains.treatments(scan.name)})
            else:
                self.brains.recall(scan, record["treatments"])
            self.names.append(scan.name)

    def _source(self, scan: Any) -> str:
        brains, hashes = self.brains, [source_hash(p) for p in (scan.image, scan.labels) if p is not None]
        classes = sorted((brains.classes or {}).items()) if scan.labels else []
        options = (brains.rescale, brains.ignore_affine, brains.choice.describe(), classes)
        return digest([str(scan.image), str(scan.labels), hashes, str(self.grid), options])

    def covariates(self, i: int) -> Mapping[str, Any]:
        """Row i's covariates."""
        return next(scan.covariates for scan in self.brains.scans if scan.name == self.names[i])

    def image(self, i: int) -> Tensor:
        """Brain i, `[1, D, H, W]` in [0, 1]."""
        return _unpacked(np.load(self.folder / self.names[i] / "image.npy"))

    def labels(self, i: int) -> Tensor | None:
        """The label map that came with brain i, `[1, D, H, W]`, or None."""
        path = self.folder / self.names[i] / "labels.npy"
        return torch.from_numpy(np.load(path).astype(np.int64)) if path.is_file() else None

    def images(self) -> "Volumes":
        """The images, read when they are indexed."""
        return Volumes(len(self), self.image)

    def prepared(self, kind: str, key: str, prepare: Callable[[Tensor], Tensor]) -> "Volumes":
        """The images after `prepare`, which gives values in [0, 1]; kept on disk after their first use.

        Arguments:
            kind: a name for them.
            key: says what `prepare` depends on.
        """
        file = f"{kind}-{digest(key):.12}.npy"

        def get(i: int) -> Tensor:
            path = self.folder / self.names[i] / file
            if not path.is_file():
                write_array(path, _packed(prepare(self.image(i))))
            return _unpacked(np.load(path))

        return Volumes(len(self), get)

    def measure(
        self,
        kind: str,
        key: str,
        compute: Callable[[int], Mapping[str, Any]],
        only: Sequence[int] | None = None,
        without: Sequence[str] = (),
    ) -> dict[int, Measures]:
        """What `compute(i)` returns for each brain i, from disk where it is there.

        A brain for which it raises an error is left out of the answer, with the reason in `brains.problems`.

        Arguments:
            kind: a name for it, also on the progress bar.
            key: says what it depends on.
            only: brains to measure; all unless given.
            without: what is kept on disk only, for `measured`.
        """
        mark, there = digest(key), []
        chosen = range(len(self)) if only is None else only
        for i in tqdm(chosen, desc=f"{kind} of {self.name}", unit="brain", disable=None):
            path = self.folder / self.names[i] / f"{kind}.npz"
            try:
                if str(_load(path, ["key"]).get("key")) != mark:
                    found = {k: np.asarray(v) for k, v in compute(i).items()}
                    with atomic(path) as temporary, open(temporary, "wb") as file:
                        np.savez_compressed(file, **(found | {"key": np.array(mark)}))  # type: ignore[arg-type]
                    del found
                there.append(i)
            except Exception as error:
                self.brains.problems[self.names[i]] = f"{kind}: {reason(error)}"
        # Read afterwards: small arrays that stay between large ones that go keep the heap from shrinking.
        return {i: _load(self.folder / self.names[i] / f"{kind}.npz", None, ["key", *without]) for i in there}

    def measured(self, kind: str, i: int, name: str) -> np.ndarray:
        """One of the things that `measure` found of brain i."""
        with np.load(self.folder / self.names[i] / f"{kind}.npz") as content:
            return np.asarray(content[name])

    def has(self, kind: str, i: int, name: str) -> bool:
        """Whether `measure` found that of brain i."""
        path = self.folder / self.names[i] / f"{kind}.npz"
        if not path.is_file():
            return False
        with np.load(path) as content:
            return name in content.files

    def clear(self) -> None:
        """Remove the decoded volumes, and keep what was measured."""
        for path in visible(self.folder, "*/*.npy"):
            within(self.folder, path.parent.name, path.name).unlink()


class Volumes(Sequence[Tensor]):
    """n volumes `[1, D, H, W]` that are read or made when they are indexed."""

    def __init__(self, n: int, get: Callable[[int], Tensor]) -> None:
        self.n, self.get = n, get

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < self.n:
            raise IndexError(i)
        return self.get(i)


def digest(content: Any) -> str:
    """A hash of what JSON can write."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _packed(volume: Tensor) -> np.ndarray:
    return (volume.double() * LEVELS).round().numpy().astype(np.uint16)


def _unpacked(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32)) / LEVELS


def _load(path: Path, only: Sequence[str] | None = None, without: Sequence[str] = ()) -> Measures:
    """What a file holds; nothing if it can't be read."""
    try:
        with np.load(path) as content:
            return {k: content[k] for k in (only or content.files) if k not in without}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}
