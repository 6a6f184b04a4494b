"""Whether a network can tell a set of brains from real ones, beside real ones from others."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.frame import Frame
from cortexgen.evaluation.store import Store, digest
from cortexgen.evaluation.table import Column
from cortexgen.io import write_json
from cortexgen.io.output import read_record
from cortexgen.metrics.classifier import FOLDS, area_under_curve, balanced_accuracy
from cortexgen.metrics.discriminator import RECIPE, held_out_scores
from cortexgen.metrics.resampling import Interval, bootstrap_interval
from cortexgen.runner.precision import Precision, choose_device

LEAST = 2  # brains of each side in each fold
COLUMNS = (
    Column("set", "Set"),
    Column("n_real", "N real"),
    Column("n", "N"),
    Column("accuracy", "Accuracy [95 % CI]", better=0.5, format=".2f"),
    Column("auc", "AUC [95 % CI]", better=0.5, format=".2f"),
    Column("n_floor", "N of floor, each side"),
    Column("accuracy_floor", "Accuracy, real against real [95 % CI]", format=".2f"),
    Column("auc_floor", "AUC, real against real [95 % CI]", format=".2f"),
)


@dataclass(frozen=True)
class Telling:
    """How the networks learn.

    Attributes:
        steps: of each fold's training.
        seed: of trainings and folds.
        device, precision: of the networks.
    """

    steps: int = 200
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"--classifier: expected 1 step or more, got {self.steps}")


class Classifiers:
    """Cross-validated networks of real brains and sets, each trained once; their answers stay in a folder.

    Arguments:
        real: the real brains.
        view: what of them is looked at.
        folder: for what was found.
        resamples: of each bootstrap.
    """

    def __init__(self, real: Store, view: Frame, folder: Path, telling: Telling, resamples: int = 500) -> None:
        self.real, self.view, self.folder, self.telling, self.resamples = real, view, folder, telling, resamples

    def row(self, store: Store) -> Row:
        """The row of a set.

        Raises:
            UserError: if there are too few brains for the folds.
        """
        every = list(range(len(self.real)))
        order = torch.randperm(len(every), generator=torch.Generator().manual_seed(self.telling.seed)).tolist()
        half = len(every) // 2
        found = self._measured((self.real, every), (store, list(range(len(store)))), store.name)
        row: Row = {"n_real": len(every), "n": len(store), "accuracy": found[0], "auc": found[1]}
        if half >= LEAST * FOLDS:
            sides = [(self.real, sorted(order[:half])), (self.real, sorted(order[half : 2 * half]))]
            floor = self._measured(sides[0], sides[1], "real brains")
            row |= {"n_floor": half, "accuracy_floor": floor[0], "auc_floor": floor[1]}
        return row

    def _measured(self, a: tuple[Store, list[int]], b: tuple[Store, list[int]], name: str) -> tuple[Interval, Interval]:
        how = self.telling
        few = min(len(a[1]), len(b[1]))
        if few < LEAST * FOLDS:
            raise UserError(f"a classifier needs {LEAST * FOLDS} or more brains of each kind, got {few}")
        keys = [[store.key(i) for i in rows] for store, rows in (a, b)]
        key = digest([RECIPE, how.steps, how.seed, FOLDS, how.precision, how.device, self.view.key, keys])
        path = self.folder / f"{key:.16}.json"
        kept = read_record(path)
        if not kept:
            readers = [[partial(self._boxed, store, i) for i in rows] for store, rows in (a, b)]
            device, title = choose_device(how.device), f"classifier of {name}"
            given = (readers[0], readers[1])
            found = held_out_scores(given, how.steps, FOLDS, how.seed, device, how.precision, title)
            kept = {"scores": [side.tolist() for side in found]}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
        x, y = (torch.tensor(side, dtype=torch.float64) for side in kept["scores"])
        accuracy, auc = (
            bootstrap_interval(statistic, x, y, n=self.resamples, seed=how.seed)
            for statistic in (balanced_accuracy, area_under_curve)
        )
        return accuracy, auc

    def _boxed(self, store: Store, i: int) -> Tensor:
        """Brain i where real ones have tissue."""
        d, h, w = (slice(low, high + 1) for low, high in zip(self.view.low, self.view.high, strict=True))
        return store.image(i)[:, d, h, w]
