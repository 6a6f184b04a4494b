"""Whether effects of covariates on anatomy (age, sex) are those of real brains."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.table import Column
from cortexgen.metrics.effects import adjusted, cohens_d, slope
from cortexgen.metrics.resampling import Interval

LEAST = 10  # brains with a known value, in each set
WITHIN = 1.959964

COLUMNS = (
    Column("set", "Set"),
    Column("covariate", "Covariate"),
    Column("region", "Region"),
    Column("effect", "Effect"),
    Column("real", "Real [95 % CI]"),
    Column("synthetic", "Synthetic [95 % CI]"),
    Column("z", "Difference / SE", better=0.0, format="+.2f"),
    Column("recovered", "Compatible"),
)
Covariates = Sequence[Mapping[str, Any]]


def effect_rows(real: Anatomy, synthetic: Anatomy, covariates: tuple[Covariates, Covariates]) -> list[Row]:
    """A row a covariate and region: slopes of numbers (ml a unit), Cohen's d of two levels, ICV held constant.

    "Compatible" says that the two effects differ by less than 1.96 standard errors of their difference.

    Arguments:
        covariates: rows of the real and of the synthetic brains, in the order of the anatomies.
    """
    rows: list[Row] = []
    for name in _shared(*covariates):
        try:
            rows += _numeric(name, real, synthetic, covariates) or _levels(name, real, synthetic, covariates)
        except UserError:
            continue  # constant, or one with head size
    return rows


def _shared(a: Covariates, b: Covariates) -> list[str]:
    counts = [{name: sum(row.get(name) is not None for row in rows) for row in rows for name in row} for rows in (a, b)]
    return [name for name, count in counts[0].items() if min(count, counts[1].get(name, 0)) >= LEAST]


def _known(anatomy: Anatomy, rows: Covariates, name: str) -> tuple[list[Any], Tensor, Tensor]:
    there = [i for i, row in enumerate(rows) if row.get(name) is not None]
    return [rows[i][name] for i in there], anatomy.volumes[there], anatomy.icv[there]


def _row(name: str, region: str, effect: str, ours: tuple[float, float], theirs: tuple[float, float]) -> Row:
    """From value and standard error of the real and of the synthetic effect."""
    z = (theirs[0] - ours[0]) / (ours[1] ** 2 + theirs[1] ** 2) ** 0.5
    both = [Interval(value, value - WITHIN * error, value + WITHIN * error) for value, error in (ours, theirs)]
    row: Row = {"covariate": name, "region": region, "effect": effect, "real": both[0], "synthetic": both[1]}
    return row | {"z": z, "recovered": abs(z) < WITHIN}


def _numeric(name: str, real: Anatomy, synthetic: Anatomy, covariates: tuple[Covariates, Covariates]) -> list[Row]:
    sides = [_known(a, rows, name) for a, rows in zip((real, synthetic), covariates, strict=True)]
    if not all(isinstance(v, int | float) for values, _, _ in sides for v in values):
        return []
    rows = []
    for k, region in enumerate(real.regions):
        found = [slope(v[:, k], torch.tensor(x, dtype=torch.float64), icv[:, None]) for x, v, icv in sides]
        rows.append(_row(name, region, "slope, ml a unit", found[0], found[1]))
    return rows


def _levels(name: str, real: Anatomy, synthetic: Anatomy, covariates: tuple[Covariates, Covariates]) -> list[Row]:
    sides = [_known(a, rows, name) for a, rows in zip((real, synthetic), covariates, strict=True)]
    levels = [sorted({str(v) for v in values}) for values, _, _ in sides]
    if levels[0] != levels[1] or len(levels[0]) != 2:
        return []
    first, second = levels[0]
    estimates = []
    for values, volumes, icv in sides:
        rest = adjusted(volumes, icv)
        groups = [[i for i, v in enumerate(values) if str(v) == level] for level in levels[0]]
        d = cohens_d(rest[groups[0]], rest[groups[1]])
        estimates.append((d.value, (d.high - d.low) / (2 * WITHIN)))
    return [
        _row(
            name,
            region,
            f"Cohen's d, {second} − {first}",
            (float(estimates[0][0][k]), float(estimates[0][1][k])),
            (float(estimates[1][0][k]), float(estimates[1][1][k])),
        )
        for k, region in enumerate(real.regions)
    ]
