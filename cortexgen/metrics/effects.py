"""Sizes of effects on regional volumes, with 95 % intervals."""

from typing import NamedTuple

import torch
from scipy.special import fdtri
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.sets import VOLUMES, two_sets


class Estimate(NamedTuple):
    """An estimate of each of K regions and the ends of its 95 % interval, `[K]` each, float64."""

    value: Tensor
    low: Tensor
    high: Tensor


def cohens_d(a: Tensor, b: Tensor) -> Estimate:
    """Cohen's d of b over a, volumes `[M, K]` and `[N, K]`: difference of means over the pooled standard deviation.

    The interval is normal, with variance `(n + m) / (n m) + d² / (2 (n + m))` (Hedges & Olkin, 1985). Errors are those
    of `two_sets`.
    """
    a, b = two_sets(a, b, "an effect size", rows=VOLUMES)
    n, m = len(a), len(b)
    pooled = ((n - 1) * a.var(dim=0) + (m - 1) * b.var(dim=0)) / (n + m - 2)
    d = (b.mean(dim=0) - a.mean(dim=0)) / pooled.sqrt()
    reach = 1.959964 * ((n + m) / (n * m) + d.square() / (2 * (n + m))).sqrt()
    return Estimate(d, d - reach, d + reach)


def sd_ratio(a: Tensor, b: Tensor) -> Estimate:
    """Standard deviation of b over that of a; below 1, b varies too little.

    The interval is exact for normal values, where `(s_b² / s_a²) / (sigma_b² / sigma_a²)` follows F(m - 1, n - 1), and
    too narrow for heavy tails: volumes of ventricles go in as logarithms.

    Arguments and errors are those of `cohens_d`.
    """
    a, b = two_sets(a, b, "an effect size", rows=VOLUMES)
    ratio = b.std(dim=0) / a.std(dim=0)
    low, high = (float(fdtri(len(b) - 1, len(a) - 1, p)) for p in (0.975, 0.025))
    return Estimate(ratio, ratio / low**0.5, ratio / high**0.5)


def adjusted(volumes: Tensor, icv: Tensor) -> Tensor:
    """Volumes corrected for intracranial volume by the residual method, `V - slope (ICV - mean ICV)`, `[N, K]`.

    Arguments:
        volumes: `[N, K]`.
        icv: `[N]`.

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if there are fewer than three brains, or all of them have one ICV.
    """
    if volumes.ndim != 2 or icv.shape != volumes.shape[:1]:
        raise ValueError(f"expected volumes [N, K] and ICV [N], got {tuple(volumes.shape)} and {tuple(icv.shape)}")
    if len(icv) < 3 or icv.min() == icv.max():
        raise UserError(f"ICV correction needs 3 or more brains of different ICV, got {len(icv)}")
    volumes, centred = volumes.double(), icv.double() - icv.double().mean()
    slopes = centred @ (volumes - volumes.mean(dim=0)) / centred.square().sum()
    return volumes - centred[:, None] * slopes


def slope(y: Tensor, x: Tensor, others: Tensor | None = None) -> tuple[float, float]:
    """Slope of y on x and its standard error, by ordinary least squares with an intercept.

    Arguments:
        y, x: `[N]`.
        others: further columns to hold constant, `[N, p]`.

    Raises:
        ValueError: if the lengths differ.
        UserError: if there are no more brains than coefficients, or a column is a combination of the others.
    """
    from statsmodels.regression.linear_model import OLS  # slow to import

    if x.shape != y.shape or y.ndim != 1 or (others is not None and (others.ndim != 2 or len(others) != len(y))):
        shapes = [tuple(t.shape) for t in (y, x, others) if t is not None]
        raise ValueError(f"expected y [N], x [N] and others [N, p], got {shapes}")
    design = torch.cat([torch.ones(len(x), 1), x[:, None], *([] if others is None else [others])], dim=1).double()
    n, p = design.shape
    if n <= p:
        raise UserError(f"a regression with {p} coefficients needs {p + 1} or more brains, got {n}")
    if torch.linalg.matrix_rank(design) < p:
        raise UserError("regression: a column is constant or a combination of the others")
    fit = OLS(y.double().numpy(), design.numpy()).fit()
    return float(fit.params[1]), float(fit.bse[1])
