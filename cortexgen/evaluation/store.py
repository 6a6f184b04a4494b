"""A set of brains on disk while it is evaluated: read once, then taken in any order, and what was measured of each."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from cortexgen.data.cohort import Scan
from cortexgen.evaluation.reading import BrainSet
from cortexgen.io import Grid, write_json
from cortexgen.io.atomic import atomic, write_array
from cortexgen.io.bids import Row, source_hash
from cortexgen.io.labels import label_type
from cortexgen.io.output import read_record
from cortexgen.io.paths import folder_within, visible, within
from cortexgen.runner.cohort import HERE, Runner

LEVELS = 65535  # of 16 bits: what [0, 1] is rounded to
Measures = dict[str, np.ndarray]


class Store:
    """The brains of a set, a folder each under `folder`.

    A run that was stopped goes on with what is there; what belongs to a file that has changed since is dropped.

    Attributes:
        name: of the set.
        brains: where they come from.
        runner: does what is done with every brain.
        grid: of all volumes.
        names: of those that could be read, in order.
    """

    def __init__(self, name: str, brains: BrainSet, folder: Path, runner: Runner = HERE) -> None:
        self.name, self.brains, self.folder, self.runner = name, brains, Path(folder), runner
        self.grid: Grid = brains.grid
        self.names: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def fill(self) -> None:
        """Read every brain that isn't there yet; those that can't be read are left out, with their reasons."""
        self.names = []
        scans = {scan.name: scan for scan in self.brains.scans if scan.name not in self.brains.problems}
        for name, row in self.runner.run(self._read, scans, f"reading {self.name}", "brain").items():
            if row["status"] == "failed":
                self.brains.problems[name] = row["reason"]
            else:
                self.brains.recall(scans[name], row["treatments"])
                self.names.append(name)

    def has(self, scan: Scan) -> bool:
        """Whether a brain was read before, from the files that it has now; nothing is read or written."""
        folder = folder_within(self.folder, scan.name)
        same = read_record(folder / "source.json").get("key") == self._source(scan)
        return same and (folder / "image.npy").is_file()

    def _read(self, scan: Scan) -> Row:
        folder = folder_within(self.folder, scan.name)
        scan.check()
        key, record = self._source(scan), read_record(folder / "source.json")
        if record.get("key") != key:
            shutil.rmtree(folder, ignore_errors=True)
        if record.get("key") != key or not (folder / "image.npy").is_file():
            brain = self.brains.read(scan)
            if brain.labels is not None:  # before the image, which says that both are there
                write_array(folder / "labels.npy", brain.labels.numpy().astype(label_type(int(brain.labels.max()))))
            write_array(folder / "image.npy", _packed(brain.image))
            record = {"key": key, "treatments": brain.treatments}
            write_json(folder / "source.json", record)
        return {"status": "ok", "treatments": record["treatments"]}

    def _source(self, scan: Scan) -> str:
        brains, hashes = self.brains, [source_hash(p) for p in (scan.image, scan.labels) if p is not None]
        classes = sorted((brains.classes or {}).items()) if scan.labels else []
        options = (brains.rescale, brains.ignore_affine, brains.choice.describe(), classes)
        paths = [str(path and path.absolute()) for path in (scan.image, scan.labels)]
        return digest([*paths, hashes, str(self.grid), options])

    def key(self, i: int) -> str:
        """What the files of brain i, and how they are read, are told by."""
        return str(read_record(self.folder / self.names[i] / "source.json")["key"])

    def covariates(self, i: int) -> Mapping[str, Any]:
        """Row i's covariates."""
        return next(scan.covariates for scan in self.brains.scans if scan.name == self.names[i])

    def image(self, i: int) -> Tensor:
        """Brain i, `[1, D, H, W]` in [0, 1]."""
        return self._volume("image.npy", i)

    def has_labels(self, i: int) -> bool:
        """Whether a label map came with brain i."""
        return (self.folder / self.names[i] / "labels.npy").is_file()

    def labels(self, i: int) -> Tensor | None:
        """The label map that came with brain i, `[1, D, H, W]`, or None."""
        path = self.folder / self.names[i] / "labels.npy"
        return torch.from_numpy(np.load(path).astype(np.int64)) if path.is_file() else None

    def images(self) -> "Volumes":
        """The images, read when they are indexed."""
        return Volumes(len(self), self.image)

    def prepared(self, kind: str, key: str, prepare: Callable[[Tensor], Tensor]) -> "Volumes":
        """The images after `prepare`, which gives values in [0, 1], on disk; one for which it fails does so when read.

        Arguments:
            kind: a name for them.
            key: says what `prepare` depends on.
        """
        file = f"{kind}-{digest(key):.12}.npy"
        waiting = {name: i for i, name in enumerate(self.names) if not (self.folder / name / file).is_file()}
        self.runner.run(partial(self._prepare, file, prepare), waiting, f"{kind} of {self.name}", "brain")
        return Volumes(len(self), partial(self._prepared, file, prepare))

    def _prepare(self, file: str, prepare: Callable[[Tensor], Tensor], i: int) -> Row:
        write_array(self.folder / self.names[i] / file, _packed(prepare(self.image(i))))
        return {"status": "ok"}

    def _prepared(self, file: str, prepare: Callable[[Tensor], Tensor], i: int) -> Tensor:
        if not (self.folder / self.names[i] / file).is_file():
            self._prepare(file, prepare, i)
        return self._volume(file, i)

    def _volume(self, file: str, i: int) -> Tensor:
        return torch.from_numpy(np.load(self.folder / self.names[i] / file).astype(np.float32)) / LEVELS

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
            compute: done by the runner, so that several processes ask for a function of a module, or a `partial` of it.
            only: brains to measure; all unless given.
            without: what is kept on disk only, for `measured`.
        """
        mark, chosen = digest(key), range(len(self)) if only is None else only
        waiting = {self.names[i]: i for i in chosen if str(self.measured(kind, i, "key")) != mark}
        rows = self.runner.run(partial(self._keep, kind, mark, compute), waiting, f"{kind} of {self.name}", "brain")
        lost = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
        self.brains.problems |= {name: f"{kind}: {why}" for name, why in lost.items()}
        # Read afterwards: small arrays that stay between large ones that go keep the heap from shrinking.
        there = [i for i in chosen if self.names[i] not in lost]
        return {i: _load(self._path(kind, i), None, ["key", *without]) for i in there}

    def _keep(self, kind: str, mark: str, compute: Callable[[int], Mapping[str, Any]], i: int) -> Row:
        found = {k: np.asarray(v) for k, v in compute(i).items()}
        with atomic(self._path(kind, i)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **(found | {"key": np.array(mark)}))  # type: ignore[arg-type]
        return {"status": "ok"}

    def _path(self, kind: str, i: int) -> Path:
        return self.folder / self.names[i] / f"{kind}.npz"

    def measured(self, kind: str, i: int, name: str) -> np.ndarray | None:
        """One of the things that `measure` found of brain i; None if it didn't."""
        return _load(self._path(kind, i), [name]).get(name)

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


def _load(path: Path, only: Sequence[str] | None = None, without: Sequence[str] = ()) -> Measures:
    """What a file holds; nothing if it can't be read."""
    try:
        with np.load(path) as content:
            return {k: content[k] for k in (only or content.files) if k not in without}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}
