"""Volumes of the template's regions in a subject, from the field."""

import torch
from torch import Tensor

from cortexgen.io import Grid
from cortexgen.spatial import integrate, jacobian_determinant, label_shares


def volume_weights(labels: Tensor, grid: Grid, target: Grid, classes: int) -> Tensor:
    """Share of each voxel of a (coarser) grid that belongs to each class, `[classes, D, H, W]`.

    Arguments:
        labels: the template's, `[1, D, H, W]` in `[0, classes)` on `grid`; what doesn't occur costs nothing.
    """
    shares = torch.zeros(classes, *target.shape)
    for k, box, share in label_shares(labels, grid.torch_affine, target.shape, target.torch_affine):
        shares[k][box] = share
    return shares


def regional_volumes(velocity: Tensor, weights: Tensor, voxel_volume: float, steps: int = 7) -> Tensor:
    """Volume in millilitres of every template region in a subject: `∫ w |J exp(-v)|` over the template's grid.

    Arguments:
        velocity: v, `[B, 3, D, H, W]` in voxels; with `steps` 0 it is a displacement, and exp(-v) its inverse.
        weights: `[classes, D, H, W]` from `volume_weights` on the velocity's grid.
        voxel_volume: of that grid, in cubic millimetres.

    Returns:
        `[B, classes]`, float64.
    """
    return growth_volumes(jacobian_determinant(integrate(velocity, steps, inverse=True)), weights, voxel_volume)


def growth_volumes(growth: Tensor, weights: Tensor, voxel_volume: float) -> Tensor:
    """The same of the growth itself, |J| of the inverse, `[B, 1, D, H, W]`."""
    growth = growth[:, 0].double()
    return torch.einsum("bdhw,kdhw->bk", growth, weights.double().to(growth.device)) * voxel_volume / 1000
