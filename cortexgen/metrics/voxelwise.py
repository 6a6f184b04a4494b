"""Where on the template a synthetic cohort's log-Jacobians differ from the real ones."""

from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.errors import UserError


class VoxelMap(NamedTuple):
    """A map on the template and its summary.

    Attributes:
        values: `[1, d, h, w]`, NaN outside the mask.
        median: over the mask.
    """

    values: Tensor
    median: float


def _check(real: Tensor, generated: Tensor, mask: Tensor) -> None:
    if real.shape[1:] != generated.shape[1:] or real.shape[2:] != mask.shape[-3:]:
        found = f"{tuple(real.shape)}, {tuple(generated.shape)} and {tuple(mask.shape)}"
        raise ValueError(f"expected maps [N, 1, d, h, w], [M, 1, d, h, w] and a mask of that grid, got {found}")
    if min(len(real), len(generated)) < 2:
        found = f"{len(real)} and {len(generated)}"
        raise UserError(f"voxelwise comparison needs 2 or more brains of each kind, got {found}")
    if not mask.any():
        raise UserError("voxelwise comparison: the mask is empty")


def _inside(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask.bool().reshape(values.shape), torch.nan)


def log_jacobian_spread(real: Tensor, generated: Tensor, mask: Tensor) -> VoxelMap:
    """Voxelwise standard deviation of the samples over that of real subjects; below 1 they vary too little there.

    Arguments:
        real, generated: log |J| on the template's grid, `[N, 1, d, h, w]` and `[M, 1, d, h, w]`.
        mask: of voxels that count, `[1, d, h, w]` or `[d, h, w]`.

    Returns:
        The map of ratios, and their median.

    Raises:
        ValueError: if the grids differ.
        UserError: if there are fewer than two of a kind, or the mask is empty.
    """
    _check(real, generated, mask)
    ratio = _inside(generated.std(dim=0) / real.std(dim=0), mask)
    return VoxelMap(ratio, float(ratio.nanmedian()))


def log_jacobian_shift(real: Tensor, generated: Tensor, mask: Tensor) -> VoxelMap:
    """Voxelwise mean of the samples less that of real subjects: 0.01 is a region about 1 % too large.

    Arguments and errors are those of `log_jacobian_spread`.

    Returns:
        The map of signed differences, and the median of their absolute values.
    """
    _check(real, generated, mask)
    shift = _inside(generated.mean(dim=0) - real.mean(dim=0), mask)
    return VoxelMap(shift, float(shift.abs().nanmedian()))
