"""A number that says how far a set of brains is from the real ones: declared once, measured with interval and floor."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.table import Column, Value
from cortexgen.metrics.resampling import Interval, bootstrap_interval, real_against_real, same_size
from cortexgen.registry import everything
from cortexgen.runner.threads import side_by_side

Better = Literal["lower", "higher", "real"] | float | None
Protocol = Literal["standard", "paper"]
Needs = Literal["anatomy", "growth", "texture", "features", "image", "sets"]
Statistic = Callable[[Tensor, Tensor], float]
Row = dict[str, Value]
POSITIVE, SHARE = (0.0, math.inf), (0.0, 1.0)  # bounds
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
class Metric:
    """A measure of a set of brains against the real ones, found by the registry.

    Attributes:
        name: a key, such as "mean_d", unique among those of a protocol; a feature network's follows it.
        title: for tables.
        needs: what `rows` is given: the "anatomy" of a set (`Anatomy`), its "growth" (log |J| of each brain at voxels
            of the template, `[N, V]`), its "texture" (`Texture`), its "features" (`[N, F]`), the "image" of one brain
            (`[1, D, H, W]`), or both "sets" (`Sides`).
        statistic: of rows of the real brains and rows of the set's; called from several threads.
        rows: what the statistic takes rows of, `[N, *]`; of an image, its numbers; of both sets, the rows of both. None
            where it can't be measured.
        better: "lower", "higher", the value to be near to, or "real" for that of the real brains alone.
        bounds: of the statistic, which intervals keep to.
        protocol: "standard" or "paper".
        alone: where the statistic describes the set alone and not its distance from the real one, what it is for real
            rows; the floor is its value for all real brains.
        least: of real brains; with fewer it is left out.
        heading: in the table of all sets; the title unless given, and not there if None.
        card: its words among the key figures of the page, where it is one.
    """

    name: str
    title: str
    needs: Needs
    statistic: Statistic
    rows: Callable[[Any], Any] = lambda given: given
    better: Better = "lower"
    bounds: tuple[float, float] = (-math.inf, math.inf)
    protocol: Protocol = "standard"
    alone: Callable[[Tensor], float] | None = None
    least: int = 0
    heading: str | None = ""
    card: str = ""

    def __post_init__(self) -> None:
        if self.needs not in get_args(Needs):
            raise ValueError(f"metric {self.name} needs {self.needs!r}, expected one of {', '.join(get_args(Needs))}")

    def fits(self, real: Tensor, synthetic: Tensor) -> bool:
        """Whether two or more brains of each side have a number, and there are enough real ones."""
        known = [int((~rows.flatten(1).isnan()).any(dim=1).sum()) for rows in (real, synthetic)]
        return min(known) > 1 and len(real) >= self.least

    def measure(
        self, real: Tensor, synthetic: Tensor, source: str = "", resamples: int = 500, repeats: int = 20, seed: int = 0
    ) -> Row:
        """The value with a 95 % bootstrap interval, and what real brains get against other real brains.

        The floor is at the largest n that the real brains can be halved to, and the set's value is given at that n too,
        since most distances depend on n.
        What needs more brains than there are is None, with the reason as a note.

        Arguments:
            real, synthetic: rows, `[N, *]` and `[M, *]`.
            source: what it is measured on: the feature network with its hash, or the labels.
            resamples: of the bootstrap.
            repeats: divisions of the real brains, of which the floor gives mean and range.
        """
        better = self.alone(real) if self.better == "real" and self.alone else self.better
        row: Row = {key: getattr(self, key) for key in ("name", "title", "protocol", "needs", "heading", "card")}
        row |= {"source": source, "better": better, "n_real": len(real), "n": len(synthetic), "alone": bool(self.alone)}
        row |= dict.fromkeys(("value", "n_floor", "at_floor", "floor", "note"))
        try:
            drawn = partial(bootstrap_interval, n=resamples, seed=seed, mapped=side_by_side)
            value = self._bounded(drawn(self.statistic, real, synthetic))
            if math.isnan(value.value):
                raise UserError("not defined for these brains")
            row["value"] = value
            if self.alone is not None:
                floor = self._bounded(drawn(self.alone, real))
                return row | {"n_floor": len(real), "at_floor": value.value, "floor": floor}
            n = min(len(real) // 2, len(synthetic))
            if n < FLOOR:
                found = f"{len(real)} real ones and {len(synthetic)}"
                raise UserError(f"a floor needs {2 * FLOOR} or more real brains and {FLOOR} others, got {found}")
            values = real_against_real(self.statistic, real, n, repeats, seed, side_by_side)
            row["floor"] = Interval(float(values.mean()), float(values.min()), float(values.max()))
            equal = same_size(self.statistic, real, synthetic, n, repeats, seed, side_by_side)
            row["at_floor"] = float(equal.mean())
            row["n_floor"] = n
        except UserError as error:
            row["note"] = str(error)
        return row

    def _bounded(self, interval: Interval) -> Interval:
        low, high = self.bounds
        return Interval(interval.value, *(min(max(end, low), high) for end in interval[1:]))


def declared() -> list[Metric]:
    """All metrics, other packages' last.

    Raises:
        UserError: if two of a protocol have one name, or a package can't be imported.
    """
    found: list[Metric] = []
    for entry in everything("metrics").values():
        found += [entry] if isinstance(entry, Metric) else entry
    names = [f"{metric.name} of protocol {metric.protocol}" for metric in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"metrics: two are called {' and '.join(twice)}")
    return found
