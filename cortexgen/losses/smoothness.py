"""Roughness of a field."""

import torch
from torch import Tensor


def gradient_energy(field: Tensor) -> Tensor:
    """Mean squared forward difference `‖∇v‖²` of a field `[B, 3, D, H, W]`, averaged over the three axes; a scalar."""
    field = field.float()
    return torch.stack([field.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()


def gradient_size(field: Tensor) -> Tensor:
    """Mean absolute forward difference of a field `[B, 3, D, H, W]`, averaged over the three axes; a scalar."""
    field = field.float()
    return torch.stack([field.diff(dim=axis).abs().mean() for axis in (2, 3, 4)]).mean()


def roughness_gradient(field: Tensor) -> Tensor:
    """`d gradient_energy / d field` of a float32 field `[B, 3, D, H, W]`, in closed form."""
    gradient = torch.zeros_like(field)
    for axis in (2, 3, 4):
        slope, size = field.diff(dim=axis), field.shape[axis]
        each = 2 / (3 * slope.numel())
        gradient.narrow(axis, 1, size - 1).add_(slope, alpha=each)
        gradient.narrow(axis, 0, size - 1).sub_(slope, alpha=each)
    return gradient
