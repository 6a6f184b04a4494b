"""What an evaluation is asked for, and what it found of each set."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.comparison import Protocol, Row
from cortexgen.evaluation.copies import Copies
from cortexgen.evaluation.discrimination import Telling
from cortexgen.evaluation.patch_copies import PatchCopies
from cortexgen.evaluation.store import Measures, Store
from cortexgen.evaluation.texture import Texture
from cortexgen.evaluation.usefulness import Learning


@dataclass(frozen=True)
class Options:
    """What is measured, and how closely: the options of `cortexgen evaluate`; the device is the feature networks'."""

    protocols: tuple[Protocol, ...] = ("standard", "paper")
    held_out: frozenset[str] = frozenset()
    pairs: int = 200
    passes: int = 1
    resamples: int = 500
    seed: int = 0
    device: str = "cpu"
    train_fields: bool = True
    learning: Learning | None = None
    telling: Telling | None = None


@dataclass
class SetResult:
    """What was found of a set.

    Attributes:
        name: of the set.
        store: its brains.
        anatomy: None without labels.
        growth: log |J| of each labelled brain on the template, `[N, 1, d, h, w]`, where labels come by registration.
        rows: of its comparisons with the real brains.
        regions, effects: rows of those tables.
        ageing: rows of the tables of `evaluation.ageing`, by name.
        texture: how its images look.
        curves: rows of the table of that.
        conditions: rows of what covariates are seen in its images.
        told_apart: row of the table of classifiers.
        worth, worth_classes: rows of what segmenters say of its labels.
        copies: nearest training subjects, in images and in fields.
        patches: what of its brains is a part of a training subject.
        notes: what couldn't be measured and why.
    """

    name: str
    store: Store
    measured: dict[int, Measures] = field(default_factory=dict)
    anatomy: Anatomy | None = None
    growth: Tensor | None = None
    rows: list[Row] = field(default_factory=list)
    regions: list[Row] = field(default_factory=list)
    effects: list[Row] = field(default_factory=list)
    ageing: dict[str, list[Row]] = field(default_factory=dict)
    texture: Texture | None = None
    curves: list[Row] = field(default_factory=list)
    conditions: list[Row] = field(default_factory=list)
    told_apart: list[Row] = field(default_factory=list)
    worth: list[Row] = field(default_factory=list)
    worth_classes: list[Row] = field(default_factory=list)
    copies: list[Copies] = field(default_factory=list)
    patches: list[PatchCopies] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> list[str]:
        """Names of the brains that have labels."""
        return [self.store.names[i] for i in self.anatomy.index] if self.anatomy else []

    def field(self) -> tuple[int, Tensor] | None:
        """The labelled brain nearest the middle of the set whose field was kept, and its velocity `[3, d, h, w]`."""
        index = self.anatomy.index if self.anatomy else []
        for k in sorted(range(len(index)), key=lambda k: abs(k - len(index) // 2)):
            velocity = self.store.measured("labels", index[k], "velocity")
            if velocity is not None:
                return index[k], torch.from_numpy(velocity).float()
        return None

    def attempt(self, what: str, action: Callable[[], object]) -> None:
        """Do something; where there are too few brains for it, note that."""
        try:
            action()
        except UserError as error:
            self.notes.append(f"{self.name}: {what} not measured: {error}")
