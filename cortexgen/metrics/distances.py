"""Distances between fields or maps, and the energy score of a cohort."""

import torch
from torch import Tensor

from cortexgen.errors import UserError

CHUNK = 1 << 14  # values of each field in float64 at a time


def pairwise_distances(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square over voxels of the length of `a_i - b_j`, `[N, M]`, float64, in the unit of `a` and `b`.

    By `|a|² + |b|² - 2 a b` in float64: equal fields are 0 to about 1e-7 of their own size.

    Arguments:
        a, b: `[N, C, *]` and `[M, C, *]`: velocities (C = 3), maps (C = 1).

    Raises:
        ValueError: if the shapes of single fields differ.
    """
    if a.ndim < 3 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"expected fields [N, C, *] of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for x, y in zip(a.flatten(1).split(CHUNK, dim=1), b.flatten(1).split(CHUNK, dim=1), strict=True):
        x, y = x.double(), y.double()
        total += x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T
    return (total.clamp(min=0) / a[0, 0].numel()).sqrt()


def energy_score(across: Tensor, within_generated: Tensor) -> float:
    """Mean over observations y of `E|X - y| - E|X - X'| / 2` (Gneiting & Raftery, JASA 2007); lower is better.

    A strictly proper score: in expectation the distribution that the observations come from has the lowest, so samples
    that vary too little lose as well as wrong ones. X and X' are different samples, which keeps the second term
    unbiased, and scores of cohorts of different sizes comparable; only differences on the same observations mean
    something.

    Arguments:
        across: distances of observations (real subjects that the generator has not seen) to samples, `[N, M]`.
        within_generated: distances among samples, `[M, M]`.

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if there are no observations, or fewer than two samples.
    """
    n, m = across.shape
    if within_generated.shape != (m, m):
        found = f"{tuple(across.shape)} and {tuple(within_generated.shape)}"
        raise ValueError(f"expected distances [N, M] and [M, M], got {found}")
    if n < 1 or m < 2:
        raise UserError(f"the energy score needs 1 or more real and 2 or more generated brains, got {n} and {m}")
    within = within_generated.double()
    spread = (within.sum() - within.trace()) / (m * (m - 1))
    return float(across.double().mean() - spread / 2)
