"""Nearness of a field to folding."""

import torch
from torch import Tensor

from cortexgen.spatial.jacobian import stencil_determinants


def folding_penalty(displacement: Tensor, margin: float = 0.2) -> Tensor:
    """Mean of `max(0, margin - det)²` over the ten determinants of each voxel cube (Liu et al., IJCV 2024); a scalar.

    Zero where every determinant of `id + u` is at least `margin`, and with a gradient before anything folds.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels.
    """
    return torch.relu(margin - stencil_determinants(displacement)).square().mean()
