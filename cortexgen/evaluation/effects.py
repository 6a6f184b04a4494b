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
WITHIN = 1.959964  # standard errors

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
Side = tuple[list[Any], Tensor, Tensor]  # values of the brains that have one, their volumes and ICV
Effects = list[tuple[float, float]]  # value and standard error in each region


def effect_rows(real: Anatomy, synthetic: Anatomy, covariates: tuple[Covariates, Covariates]) -> list[Row]:
    """A row a covariate and region: slopes of numbers (ml a unit), Cohen's d of two levels, ICV held constant.

    "Compatible" says that the two effects differ by less than 1.96 standard errors of their difference.

    Arguments:
        covariates: rows of the real and of the synthetic brains, in the order of the anatomies.
    """
    rows: list[Row] = []
    for name in _shared(*covariates):
        sides = [_known(a, each, name) for a, each in zip((real, synthetic), covariates, strict=True)]
        levels = [sorted({str(value) for value in values}) for values, _, _ in sides]
        try:
            if all(isinstance(v, int | float) for values, _, _ in sides for v in values):
                effect, found = "slope, ml a unit", [_slopes(*side) for side in sides]
            elif levels[0] == levels[1] and len(levels[0]) == 2:
                effect = f"Cohen's d, {levels[0][1]} − {levels[0][0]}"
                found = [_differences(*side, levels[0]) for side in sides]
            else:
                continue
        except UserError:
            continue  # constant, or one with head size
        rows += [_row(name, region, effect, *both) for region, *both in zip(real.regions, *found, strict=True)]
    return rows


def _shared(a: Covariates, b: Covariates) -> list[str]:
    counts = [{name: sum(row.get(name) is not None for row in rows) for row in rows for name in row} for rows in (a, b)]
    return [name for name, count in counts[0].items() if min(count, counts[1].get(name, 0)) >= LEAST]


def _known(anatomy: Anatomy, rows: Covariates, name: str) -> Side:
    there = [i for i, row in enumerate(rows) if row.get(name) is not None]
    return [rows[i][name] for i in there], anatomy.volumes[there], anatomy.icv[there]


def _slopes(values: list[float], volumes: Tensor, icv: Tensor) -> Effects:
    return [slope(v, torch.tensor(values, dtype=torch.float64), icv[:, None]) for v in volumes.T]


def _differences(values: list[Any], volumes: Tensor, icv: Tensor, levels: list[str]) -> Effects:
    rest = adjusted(volumes, icv)
    d = cohens_d(*(rest[[i for i, v in enumerate(values) if str(v) == level]] for level in levels))
    return list(zip(d.value.tolist(), ((d.high - d.low) / (2 * WITHIN)).tolist(), strict=True))


def _row(name: str, region: str, effect: str, ours: tuple[float, float], theirs: tuple[float, float]) -> Row:
    """From value and standard error of the real and of the synthetic effect."""
    z = (theirs[0] - ours[0]) / (ours[1] ** 2 + theirs[1] ** 2) ** 0.5
    both = [Interval(value, value - WITHIN * error, value + WITHIN * error) for value, error in (ours, theirs)]
    row: Row = {"covariate": name, "region": region, "effect": effect, "real": both[0], "synthetic": both[1]}
    return row | {"z": z, "recovered": abs(z) < WITHIN}
