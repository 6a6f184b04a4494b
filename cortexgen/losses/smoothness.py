"""Roughness of a field."""

import torch
from torch import Tensor


def gradient_energy(field: Tensor) -> Tensor:
    """Mean squared forward difference `‖∇v‖²` of a field `[B, 3, D, H, W]`, averaged over the three axes; a scalar."""
    field = field.float()
    return torch.stack([field.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).mean()
