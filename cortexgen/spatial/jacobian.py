"""Jacobian determinants of `id + u`, and the test for folds.

A determinant by central differences can be positive where the trilinear field folds (a checkerboard is invisible to
it). Liu et al., "On finite difference Jacobian computation in deformable image registration" (IJCV 2024), split each
voxel cube into five tetrahedra in its two ways: eight corner determinants (every combination of forward and backward
differences) and two of the central tetrahedra. All ten positive means that the field, read as piecewise linear on those
tetrahedra, is injective there; with noise of half a voxel the trilinear reading can still turn inside such a cube, so
fields are checked on every grid that they are written on.
"""

from itertools import product

import torch
from torch import Tensor

# The vertices of the two tetrahedra that remain when four corners are cut off a cube.
_CENTRAL = (((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)), ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)))


def _determinant(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Determinants of the matrices with columns a, b, c, each `[B, 3, ...]`."""
    return (a * torch.linalg.cross(b, c, dim=1)).sum(dim=1)


def stencil_determinants(displacement: Tensor) -> Tensor:
    """The ten determinants of each voxel cube, 1 everywhere for the identity.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels, no side shorter than 2.

    Returns:
        `[B, 10, D - 1, H - 1, W - 1]`: the corners in binary order, then the two central tetrahedra.

    Raises:
        ValueError: if the shape is not that of a field.
    """
    if displacement.ndim != 5 or displacement.shape[1] != 3 or min(displacement.shape[2:]) < 2:
        raise ValueError(
            f"expected a field [B, 3, D, H, W] of at least 2 voxels a side, got {tuple(displacement.shape)}"
        )
    u = displacement.float()
    d, h, w = (n - 1 for n in u.shape[2:])

    def vertex(i: int, j: int, k: int) -> Tensor:
        offset = torch.tensor([i, j, k], dtype=u.dtype, device=u.device).view(1, 3, 1, 1, 1)
        return u[:, :, i : i + d, j : j + h, k : k + w] + offset

    out = []
    for i, j, k in product((0, 1), repeat=3):
        here = vertex(i, j, k)
        edges = (vertex(1 - i, j, k) - here, vertex(i, 1 - j, k) - here, vertex(i, j, 1 - k) - here)
        out.append(_determinant(*edges) * (-1) ** (i + j + k))
    for (o, a, b, c), sign in zip(_CENTRAL, (1, -1), strict=True):
        origin = vertex(*o)
        out.append(_determinant(vertex(*a) - origin, vertex(*b) - origin, vertex(*c) - origin) * sign / 2)
    return torch.stack(out, dim=1)


def folded(displacement: Tensor) -> Tensor:
    """Number of voxel cubes of each field in which any of the ten determinants is not positive, `[B]` int64."""
    return (~(stencil_determinants(displacement) > 0)).any(dim=1).flatten(1).sum(dim=1)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Determinant by central differences (one-sided at the border): the mean of the eight one-sided ones.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels.

    Returns:
        `[B, 1, D, H, W]`.
    """
    columns = []
    for axis, gradient in enumerate(torch.gradient(displacement.float(), dim=(2, 3, 4))):
        unit = torch.zeros(1, 3, 1, 1, 1, device=displacement.device)
        unit[:, axis] = 1
        columns.append(gradient + unit)
    return _determinant(*columns).unsqueeze(1)


def log_jacobian(displacement: Tensor, floor: float = 1e-3) -> Tensor:
    """`log |J|` of `id + u`, determinants below `floor` counted as `floor`, `[B, 1, D, H, W]`.

    Of the inverse field, on the template's grid, it is the growth of each template voxel in the subject.
    """
    return jacobian_determinant(displacement).clamp(min=floor).log()
