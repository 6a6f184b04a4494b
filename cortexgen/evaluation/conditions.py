"""Whether brains look like what they were asked to be: covariates as asked for, and as a trained network sees them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.table import Column
from cortexgen.metrics.resampling import Interval, bootstrap_interval

LEAST = 10  # brains of known covariate, in the set

COLUMNS = (
    Column("set", "Set"),
    Column("covariate", "Covariate"),
    Column("n_real", "N real"),
    Column("n", "N"),
    Column("error_real", "Error, real [95 % CI]", format=".3g"),
    Column("error", "Error [95 % CI]", better="lower", format=".3g"),
    Column("bias_real", "Seen − asked, real [95 % CI]", format="+.3g"),
    Column("bias", "Seen − asked [95 % CI]", better=0.0, format="+.3g"),
    Column("slope_real", "Slope, real [95 % CI]", format=".2f"),
    Column("slope", "Slope of seen on asked [95 % CI]", better=1.0, format=".2f"),
    Column("r_real", "Correlation, real [95 % CI]", format=".2f"),
    Column("r", "Correlation [95 % CI]", better="higher", format=".2f"),
    Column("right_real", "Right, real [95 % CI]", format=".2f"),
    Column("right", "Right [95 % CI]", better="higher", format=".2f"),
)
Seen = tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]  # covariates of each brain, and answers


def condition_rows(specs: Mapping[str, Any], real: Seen, synthetic: Seen, resamples: int, seed: int = 0) -> list[Row]:
    """A row a covariate that ten or more brains of the set have: how far what is seen is from what was asked for.

    Of a number the mean absolute error, the mean difference, slope and correlation; of two levels the share that is
    seen right. Real brains, whose covariate is known, say what the network can see: its answers lean to the training
    people's mean, so that a slope below 1 is usual.

    Arguments:
        specs: of the network's answers, by name; a spec with "levels" is of two, answered by the probability of the
            second.
        real, synthetic: covariates and answers, a mapping a brain each.
        resamples: of each bootstrap over brains.
    """
    rows: list[Row] = []
    for name, spec in specs.items():
        pairs = [_pairs(name, spec.get("levels"), side) for side in (real, synthetic)]
        if len(pairs[1]) < LEAST:
            continue
        row: Row = {"covariate": name, "n_real": len(pairs[0]), "n": len(pairs[1])}
        statistics = (
            {"right": _right} if "levels" in spec else {"error": _error, "bias": _bias, "slope": _slope, "r": _r}
        )
        for end, rows_of in (("_real", pairs[0]), ("", pairs[1])):
            if len(rows_of) >= LEAST:
                interval = partial(bootstrap_interval, n=resamples, seed=seed)
                row |= {key + end: _known(interval(each, rows_of)) for key, each in statistics.items()}
        rows.append(row)
    return rows


def _pairs(name: str, levels: Sequence[str] | None, side: Seen) -> Tensor:
    """What was asked for, and what is seen, `[N, 2]`, of the brains that say the first."""
    found = []
    for covariates, answers in zip(*side, strict=True):
        asked = covariates.get(name)
        if levels is not None and asked in levels:
            found.append((float(levels.index(asked)), float(answers[name])))
        elif levels is None and isinstance(asked, int | float):
            found.append((float(asked), float(answers[name])))
    return torch.tensor(found, dtype=torch.float64).reshape(-1, 2)


def _known(found: Interval) -> Interval | None:
    return found if found.value == found.value else None


def _error(pairs: Tensor) -> float:
    return float((pairs[:, 1] - pairs[:, 0]).abs().mean())


def _bias(pairs: Tensor) -> float:
    return float((pairs[:, 1] - pairs[:, 0]).mean())


def _slope(pairs: Tensor) -> float:
    x, y = (pairs - pairs.mean(dim=0)).T
    return float((x * y).sum() / x.square().sum())


def _r(pairs: Tensor) -> float:
    return float(torch.corrcoef(pairs.T)[0, 1])


def _right(pairs: Tensor) -> float:
    return float(((pairs[:, 1] > 0.5) == (pairs[:, 0] > 0.5)).double().mean())
