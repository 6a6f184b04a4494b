"""Where on the template a synthetic cohort's log-Jacobians differ from the real ones."""

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.sets import enough


def _check(real: Tensor, generated: Tensor, mask: Tensor) -> None:
    if real.shape[1:] != generated.shape[1:] or real.shape[2:] != mask.shape[-3:]:
        found = f"{tuple(real.shape)}, {tuple(generated.shape)} and {tuple(mask.shape)}"
        raise ValueError(f"expected maps [N, 1, d, h, w], [M, 1, d, h, w] and a mask of that grid, got {found}")
    enough(len(real), len(generated), "voxelwise comparison")
    if not mask.any():
        raise UserError("voxelwise comparison: the mask is empty")


def _inside(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask.bool().reshape(values.shape), torch.nan)


def log_jacobian_spread(real: Tensor, generated: Tensor, mask: Tensor) -> Tensor:
    """Voxelwise standard deviation of the samples over that of real subjects; below 1 they vary too little there.

    Arguments:
        real, generated: log |J| on the template's grid, `[N, 1, d, h, w]` and `[M, 1, d, h, w]`.
        mask: of voxels that count, `[1, d, h, w]` or `[d, h, w]`.

    Returns:
        `[1, d, h, w]`, NaN outside the mask.

    Raises:
        ValueError: if the grids differ.
        UserError: if there are fewer than two of a kind, or the mask is empty.
    """
    _check(real, generated, mask)
    return _inside(generated.std(dim=0) / real.std(dim=0), mask)


def log_jacobian_shift(real: Tensor, generated: Tensor, mask: Tensor) -> Tensor:
    """Voxelwise mean of the samples less that of real subjects: 0.01 is a region about 1 % too large.

    Arguments, errors and what is returned are those of `log_jacobian_spread`.
    """
    _check(real, generated, mask)
    return _inside(generated.mean(dim=0) - real.mean(dim=0), mask)
