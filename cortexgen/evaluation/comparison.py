"""A number that says how far a set of brains is from the real ones, with its interval and its floor."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.table import Column, Value
from cortexgen.metrics.resampling import Interval, bootstrap_interval, real_against_real, same_size

Better = Literal["lower", "higher"] | float | None
Protocol = Literal["standard", "paper"]
Statistic = Callable[[Tensor, Tensor], float]
Row = dict[str, Value]
FLOOR = 4  # brains of each side, for real against real

COLUMNS = (
    Column("set", "Set"),
    Column("protocol", "Protocol"),
    Column("name", "Name"),
    Column("title", "Metric"),
    Column("source", "Measured on"),
    Column("n_real", "N real"),
    Column("n", "N"),
    Column("value", "Value [95 % CI]"),
    Column("n_floor", "n of floor"),
    Column("at_floor", "Value at n"),
    Column("floor", "Real against real at n [range]"),
    Column("note", "Note"),
)


@dataclass(frozen=True)
class Comparison:
    """A statistic of real brains and those of a set.

    Attributes:
        name: a key, such as "fid_resnet50"; unique among those of one set and protocol.
        title: for tables.
        protocol: "standard" or "paper".
        statistic: of rows of `real` and rows of `synthetic`.
        real, synthetic: `[N, *]` and `[M, *]`, whatever the statistic takes rows of.
        better: "lower", "higher", or the value to be near to.
        source: what it is measured on: the feature network with its hash, or the labels.
        bounds: of the statistic, which intervals keep to.
        alone: where the statistic describes the set alone and not its distance from the real one, what it is for real
            rows; the floor is its value for all real brains.
    """

    name: str
    title: str
    protocol: Protocol
    statistic: Statistic
    real: Tensor
    synthetic: Tensor
    better: Better = "lower"
    source: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    alone: Callable[[Tensor], float] | None = None

    def measure(self, resamples: int, repeats: int = 20, seed: int = 0) -> Row:
        """The value with a 95 % bootstrap interval, and what real brains get against other real brains.

        The floor is at the largest n that the real brains can be halved to, and the set's value is given at that n too,
        since most distances depend on n.
        What needs more brains than there are is None, with the reason as a note.

        Arguments:
            resamples: of the bootstrap.
            repeats: divisions of the real brains, of which the floor gives mean and range.
        """
        row: Row = {"name": self.name, "title": self.title, "protocol": self.protocol, "source": self.source}
        row |= {"better": self.better}
        row |= {"n_real": len(self.real), "n": len(self.synthetic), "value": None, "note": None}
        row |= {"n_floor": None, "at_floor": None, "floor": None}
        try:
            value = self._bounded(bootstrap_interval(self.statistic, self.real, self.synthetic, n=resamples, seed=seed))
            if math.isnan(value.value):
                raise UserError("not defined for these brains")
            row["value"] = value
            if self.alone is not None:
                floor = self._bounded(bootstrap_interval(self.alone, self.real, n=resamples, seed=seed))
                return row | {"n_floor": len(self.real), "at_floor": value.value, "floor": floor}
            n = min(len(self.real) // 2, len(self.synthetic))
            if n < FLOOR:
                found = f"{len(self.real)} real ones and {len(self.synthetic)}"
                raise UserError(f"a floor needs {2 * FLOOR} or more real brains and {FLOOR} others, got {found}")
            values = real_against_real(self.statistic, self.real, n, repeats, seed)
            row["floor"] = Interval(float(values.mean()), float(values.min()), float(values.max()))
            row["at_floor"] = float(same_size(self.statistic, self.real, self.synthetic, n, repeats, seed).mean())
            row["n_floor"] = n
        except UserError as error:
            row["note"] = str(error)
        return row

    def _bounded(self, interval: Interval) -> Interval:
        low, high = self.bounds
        return Interval(interval.value, max(interval.low, low), min(interval.high, high))


def measure_all(comparisons: Sequence[Comparison], resamples: int, seed: int = 0) -> list[Row]:
    """A row each."""
    return [comparison.measure(resamples, seed=seed) for comparison in comparisons]


def rows(n: int, first: int = 0) -> Tensor:
    """Indices of n brains from `first` on, to look something up by."""
    return torch.arange(first, first + n)
