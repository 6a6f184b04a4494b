"""Whether volumes change with age as real brains' do: effect sizes in bands of age, slopes and curves per sex."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.effects import LEAST, WITHIN
from cortexgen.evaluation.table import Column
from cortexgen.metrics.ageing import DECADE, age_curve
from cortexgen.metrics.effects import cohens_d
from cortexgen.metrics.resampling import Interval, percentiles

BANDS = ((20, 40), (40, 60), (60, math.inf))  # years: from the first, below the second
AGES = range(20, 90, 10)  # of the curves
CLOSE, REACH = 0.3, 0.4  # |d| that is close, and the largest half-width of the interval of one that was measured

BAND_COLUMNS = (
    Column("set", "Set"),
    Column("band", "Age"),
    Column("region", "Region"),
    Column("n_real", "N real"),
    Column("n", "N"),
    Column("d", "d, not adjusted [95 % CI]", better=0.0, format="+.2f"),
    Column("close", f"|d| < {CLOSE}"),
)
SLOPE_COLUMNS = (
    Column("set", "Set"),
    Column("sex", "Sex"),
    Column("region", "Region"),
    Column("n_real", "N real"),
    Column("n", "N"),
    Column("slope_real", "Slope, real [95 % CI]", "ml a year", format="+.3g"),
    Column("slope", "Slope [95 % CI]", "ml a year", format="+.3g"),
    Column("slope_z", "Difference / SE", better=0.0, format="+.2f"),
    Column("bend_real", "Curvature, real [95 % CI]", "ml a decade²", format="+.3g"),
    Column("bend", "Curvature [95 % CI]", "ml a decade²", format="+.3g"),
    Column("bend_z", "Difference / SE of curvatures", better=0.0, format="+.2f"),
)
CURVE_COLUMNS = (
    Column("set", "Set"),
    Column("sex", "Sex"),
    Column("region", "Region"),
    Column("age", "Age"),
    Column("real", "Real mean [95 % CI]", "ml"),
    Column("synthetic", "Mean [95 % CI]", "ml"),
    Column("z", "Difference / SE", better=0.0, format="+.2f"),
)
TABLES: dict[str, tuple[str, tuple[Column, ...]]] = {
    "age_bands": ("Regional volumes in bands of age", BAND_COLUMNS),
    "age_slopes": ("Volumes on age, each sex", SLOPE_COLUMNS),
    "age_curves": ("Volumes at each age, each sex", CURVE_COLUMNS),
}


class People(NamedTuple):
    """Brains of known age.

    Attributes:
        volumes: `[N, K]` in ml.
        ages: `[N]` in years.
        sexes: "F", "M" or None each.
    """

    volumes: Tensor
    ages: Tensor
    sexes: Sequence[str | None]

    @classmethod
    def of(cls, volumes: Tensor, covariates: Sequence[Mapping[str, Any]]) -> "People":
        """Those whose covariates have an age."""
        known = [i for i, row in enumerate(covariates) if isinstance(row.get("age"), int | float)]
        ages = torch.tensor([float(covariates[i]["age"]) for i in known], dtype=torch.float64)
        return cls(volumes[known].double(), ages, [covariates[i].get("sex") for i in known])

    def sex(self, sex: str) -> "People":
        """Those of a sex."""
        there = [i for i, found in enumerate(self.sexes) if found == sex]
        return People(self.volumes[there], self.ages[there], [sex] * len(there))

    def between(self, low: float, high: float) -> Tensor:
        """Volumes of those of an age, `[n, K]`."""
        return self.volumes[(self.ages >= low) & (self.ages < high)]


def age_rows(
    regions: Sequence[str], real: People, synthetic: People, resamples: int = 1000, seed: int = 0
) -> dict[str, list[Row]]:
    """Rows of the tables by name; nothing with fewer than ten people of known age on a side."""
    if min(len(real.ages), len(synthetic.ages)) < LEAST:
        return {}
    return {
        "age_bands": band_rows(regions, real, synthetic, resamples, seed),
        "age_slopes": slope_rows(regions, real, synthetic),
        "age_curves": curve_rows(regions, real, synthetic),
    }


def band_rows(regions: Sequence[str], real: People, synthetic: People, resamples: int, seed: int = 0) -> list[Row]:
    """A row a band of age and region: Cohen's d of the synthetic volumes over the real ones.

    The interval is the 2.5th and 97.5th percentile over resamples of both sides. "close" is yes or no, and "not
    measured" where the interval is wider than ±0.4 or a side has fewer than three brains.
    """
    rows: list[Row] = []
    for low, high in BANDS:
        band = f"{low} and over" if math.isinf(high) else f"{low}-{high}"
        a, b = (side.between(low, high) for side in (real, synthetic))
        found: list[Interval | None] = [None] * len(regions)
        if min(len(a), len(b)) > 2:
            ends = percentiles(lambda x, y: cohens_d(x, y).value, a, b, draws=resamples, seed=seed)
            found = [Interval(*map(float, each)) for each in zip(cohens_d(a, b).value, *ends, strict=True)]
        counts = {"n_real": len(a), "n": len(b)}
        rows += [
            {"band": band, "region": region, **counts, "d": d, "close": _close(d)}
            for region, d in zip(regions, found, strict=True)
        ]
    return rows


def _close(d: Interval | None) -> str:
    if d is None or not (d.high - d.low) / 2 <= REACH:
        return "not measured"
    return "yes" if abs(d.value) < CLOSE else "no"


def slope_rows(regions: Sequence[str], real: People, synthetic: People) -> list[Row]:
    """A row a sex and region: slope of a line, curvature of a parabola, and how far both sides' are from each other."""
    rows: list[Row] = []
    names = [f"{which}{end}" for which in ("slope", "bend") for end in ("_real", "", "_z")]
    for sex, sides in _sexes(real, synthetic):
        found: Row = {"sex": sex, "n_real": len(sides[0].ages), "n": len(sides[1].ages)}
        lines, parabolas = ([age_curve(p.volumes, p.ages, degree) for p in sides] for degree in (1, 2))
        slopes = _compared(*([v / DECADE for v in line.term(1)] for line in lines))
        bends = _compared(*(parabola.term(2) for parabola in parabolas))
        for region, slope, bend in zip(regions, slopes, bends, strict=True):
            values: Row = dict(zip(names, [*slope, *bend], strict=True))
            rows.append(found | {"region": region} | values)
    return rows


def curve_rows(regions: Sequence[str], real: People, synthetic: People) -> list[Row]:
    """A row a sex, region and decade that both sides reach to five years: volumes by the parabola."""
    rows: list[Row] = []
    for sex, sides in _sexes(real, synthetic):
        low, high = max(float(p.ages.min()) for p in sides), min(float(p.ages.max()) for p in sides)
        curves = [age_curve(p.volumes, p.ages, 2) for p in sides]
        ages = [age for age in AGES if low - DECADE / 2 <= age <= high + DECADE / 2]
        points = {age: _compared(*(curve.at(age) for curve in curves)) for age in ages}
        for k, region in enumerate(regions):
            for age, found in points.items():
                ours, theirs, z = found[k]
                rows.append({"sex": sex, "region": region, "age": age, "real": ours, "synthetic": theirs, "z": z})
    return rows


def _sexes(real: People, synthetic: People) -> Iterator[tuple[str, list[People]]]:
    """The sexes that both sides have enough of, at enough ages."""
    for sex in sorted({sex for sex in real.sexes if sex}):
        sides = [side.sex(sex) for side in (real, synthetic)]
        if all(len(p.ages) >= LEAST and len(p.ages.unique()) > 2 for p in sides):
            yield sex, sides


def _compared(*sides: Sequence[Tensor]) -> list[tuple[Interval, Interval, float]]:
    """Of each region the real and the synthetic value with their intervals, and their difference in standard errors.

    Arguments:
        sides: values and standard errors, `[K]` each.
    """
    (a, error_a), (b, error_b) = sides
    z = (b - a) / (error_a.square() + error_b.square()).sqrt()
    both = [
        [Interval(float(v), float(v - WITHIN * e), float(v + WITHIN * e)) for v, e in zip(*side, strict=True)]
        for side in sides
    ]
    return list(zip(*both, z.tolist(), strict=True))
