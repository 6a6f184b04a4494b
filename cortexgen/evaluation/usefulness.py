"""What the labels of a set are worth: a segmenter judges them, and one that learned from them is judged."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cortexgen.atlas.labels import classes_of
from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.store import Store, digest
from cortexgen.evaluation.table import Column
from cortexgen.io.atomic import atomic
from cortexgen.metrics.resampling import bootstrap_interval
from cortexgen.metrics.segmenter import RECIPE, Pair, overlaps, small_unet, train_segmenter
from cortexgen.runner.precision import Precision, choose_device

LEAST = 2  # brains with labels, on either side
ALL = "all"
REAL_BRAINS, HELD_OUT = "real brains", "held-out real brains"  # in the rows
COLUMNS = (
    Column("set", "Set"),
    Column("learned", "Learned from"),
    Column("n_learned", "N real"),
    Column("n_synthetic", "N synthetic"),
    Column("judged", "Judged on"),
    Column("n", "N"),
    Column("dice", "Dice [95 % CI]", better="higher", format=".3f"),
    Column("seeds", "Trainings"),
)
CLASS_COLUMNS = (
    Column("set", "Set"),
    Column("class", "Class"),
    Column("learned", "Learned from"),
    Column("judged", "Judged on"),
    Column("dice", "Dice", better="higher", format=".3f"),
)


@dataclass(frozen=True)
class Learning:
    """How segmenters learn.

    Attributes:
        steps: of each training.
        augment: numbers of real subjects that one learns from without and with the set beside; None is all of them.
        seeds: trainings of each, of which the mean is shown.
        seed: the first of theirs, and of the subjects that are drawn.
        device, precision: of the networks.
    """

    steps: int = 600
    augment: Sequence[int | None] = ()
    seeds: int = 1
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("seeds", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--segmenter: expected {least} {name} or more, got {getattr(self, name)}")
        if few := [n for n in self.augment if n is not None and n < LEAST]:
            raise UserError(f"--augment: expected {LEAST} real subjects or more, or {ALL}, got {few[0]}")


class Labelled:
    """The brains of a store that came with labels.

    Arguments:
        store: the set.
        index: rows of it, of which those that have a label map count.
    """

    def __init__(self, store: Store, index: Sequence[int] | None = None) -> None:
        self.store = store
        wanted = range(len(store)) if index is None else index
        self.index = [i for i in wanted if store.has_labels(i)]

    def __len__(self) -> int:
        return len(self.index)

    def some(self, n: int | None, seed: int) -> "Labelled":
        """n of them, drawn; more are drawn to fewer."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).tolist()
        return Labelled(self.store, sorted(self.index[k] for k in order[: n or len(self)]))

    @property
    def key(self) -> list[str]:
        """What the files of the brains are told by."""
        return [self.store.key(i) for i in self.index]

    def found(self) -> set[int]:
        """Numbers of labels that occur."""
        return {int(k) for i in self.index for k in np.unique(np.asarray(self.store.labels(i)))}


def _pair(store: Store, numbers: Sequence[int], i: int) -> Pair:
    labels = store.labels(i)
    assert labels is not None
    return store.image(i), classes_of(labels, numbers, store.names[i])


def _judge(path: Path, store: Store, numbers: Sequence[int], device: str, precision: Precision, i: int) -> Any:
    """Dice of the segmenter in a file on a brain."""
    net = small_unet(len(numbers))
    net.load_state_dict(load_file(path))
    chosen = choose_device(device)
    pair = _pair(store, numbers, i)
    return {"dice": overlaps(net.to(chosen).eval(), pair, len(numbers), device=chosen, precision=precision)}


class Worth:
    """Segmenters of real brains, and of sets.

    Each is trained once; weights and what they say of each brain stay in a folder.

    Arguments:
        train, test: real brains to learn from, and others to be judged on.
        folder: for the weights.
        classes: names of the labels, where they are known.
        resamples: of each bootstrap.

    Raises:
        UserError: if there are too few brains with label maps on a side.
    """

    def __init__(
        self,
        train: Labelled,
        test: Labelled,
        folder: Path,
        learning: Learning,
        classes: Mapping[int, str] | None = None,
        resamples: int = 500,
    ) -> None:
        for side, what in ((train, "to learn from"), (test, "to be judged on")):
            if len(side) < LEAST:
                maps = f"{len(side)} real brains with a label map {what}"
                raise UserError(f"a segmenter needs {LEAST} or more, found {maps}")
        self.train, self.test, self.folder, self.learning = train, test, folder, learning
        self.resamples, self.names = resamples, dict(classes or {})
        self.numbers = sorted({0, *train.found(), *test.found()})

    def rows(self, name: str, store: Store) -> tuple[list[Row], list[Row]]:
        """Rows of the table of a set, and of that of its classes.

        Raises:
            UserError: if too few of its brains have a label map, or they hold labels that no real brain has.
        """
        synthetic = Labelled(store)
        if len(synthetic) < LEAST:
            raise UserError(f"a segmenter needs {LEAST} or more brains with a label map, found {len(synthetic)}")
        if unknown := sorted(synthetic.found() - set(self.numbers)):
            raise UserError(f"label {unknown[0]} is none of the real brains'")
        real, both = REAL_BRAINS, f"{REAL_BRAINS} and {name}"
        found = [
            self._row(real, [self.train], HELD_OUT, self.test),
            self._row(real, [self.train], name, synthetic),
            self._row(name, [synthetic], HELD_OUT, self.test),
        ]
        for n in dict.fromkeys(n if n is None or n < len(self.train) else None for n in self.learning.augment):
            few = self.train.some(n, self.learning.seed)
            found.append(self._row(real, [few], HELD_OUT, self.test))
            found.append(self._row(both, [few, synthetic], HELD_OUT, self.test))
        rows = list({(r["learned"], r["n_learned"], r["judged"]): r for r, _ in found}.values())
        return rows, [row for _, rows in found[:3] for row in rows]

    def _row(self, learned: str, sides: Sequence[Labelled], judged: str, test: Labelled) -> tuple[Row, list[Row]]:
        each = [self._scores(learned, sides, test, k) for k in range(self.learning.seeds)]
        known = sorted(set.intersection(*map(set, each)))
        scores = torch.stack([torch.stack([found[i] for i in known]) for found in each]).nanmean(dim=0)
        dice = bootstrap_interval(_mean, scores, n=self.resamples, seed=self.learning.seed)
        counts = [sum(len(s) for s in sides if (s.store is self.train.store) == real) for real in (True, False)]
        row: Row = {"learned": learned, "n_learned": counts[0], "n_synthetic": counts[1], "judged": judged}
        row |= {"n": len(scores), "dice": dice, "seeds": self.learning.seeds}
        dices = zip(self.numbers[1:], scores.nanmean(dim=0).tolist(), strict=True)
        about = {"learned": learned, "judged": judged}
        return row, [{"class": self.names.get(n, str(n)), **about, "dice": d} for n, d in dices if d == d]

    def _scores(self, learned: str, sides: Sequence[Labelled], test: Labelled, repeat: int) -> dict[int, Tensor]:
        """Dice `[classes - 1]` on each brain, by its row, of a segmenter that learned from one set, or of two."""
        path, how, store = self._trained(learned, sides, repeat), self.learning, test.store
        judge = partial(_judge, path, store, self.numbers, how.device, how.precision)
        found = store.measure(f"segmented-{path.stem}", path.stem, judge, only=test.index)
        if len(found) < LEAST:
            raise UserError(
                f"{store.name}: {next(iter(store.brains.problems.values()), 'no brain could be segmented')}"
            )
        return {i: torch.from_numpy(measures["dice"]) for i, measures in found.items()}

    def _trained(self, learned: str, sides: Sequence[Labelled], repeat: int) -> Path:
        how, seed = self.learning, self.learning.seed + repeat
        key = digest([RECIPE, how.steps, seed, list(self.numbers), [side.key for side in sides]])
        path = self.folder / f"{key:.16}.safetensors"
        if not path.is_file():
            readers = [[partial(_pair, side.store, self.numbers, i) for i in side.index] for side in sides]
            name, device = f"segmenter of {learned}", choose_device(how.device)
            net = train_segmenter(readers, len(self.numbers), how.steps, seed, device, how.precision, name)
            _save(net, path)
        return path


def real_sides(real: Store, train: Store | None, held_out: Collection[str]) -> tuple[Labelled, Labelled]:
    """The labelled real brains that segmenters learn from, and those that they are judged on.

    Arguments:
        train: brains to learn from; the real ones that aren't held out unless given.
        held_out: names of real brains.
    """
    learning = set(train.names) if train else set(real.names) - set(held_out)
    rows = {
        inside: [i for i, name in enumerate(real.names) if (name in learning) == inside] for inside in (True, False)
    }
    return Labelled(train) if train else Labelled(real, rows[True]), Labelled(real, rows[False])


def _mean(rows: Tensor) -> float:
    return float(rows.nanmean())


def _save(net: nn.Module, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in net.state_dict().items()}, temporary)
