"""Distances between fields or maps."""

import torch
from torch import Tensor

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
