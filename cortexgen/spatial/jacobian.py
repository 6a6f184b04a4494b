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


def _determinant(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Determinants of the matrices with columns a, b, c, each `[B, 3, ...]`."""
    (a0, a1, a2), (b0, b1, b2), (c0, c1, c2) = (t.unbind(dim=1) for t in (a, b, c))
    minors = ((b1, c2, b2, c1), (b2, c0, b0, c2), (b0, c1, b1, c0))
    x, y, z = (torch.addcmul(p * q, r, s, value=-1) for p, q, r, s in minors)
    return torch.addcmul(torch.addcmul(a0 * x, a1, y), a2, z)


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
        shape = tuple(displacement.shape)
        raise ValueError(f"expected a field [B, 3, D, H, W] of at least 2 voxels a side, got {shape}")
    u = displacement.float()
    n, m, o = (size - 1 for size in u.shape[2:])
    along_d, along_h, along_w = (u.diff(dim=axis) for axis in (2, 3, 4))
    for axis, along in enumerate((along_d, along_h, along_w)):
        along[:, axis] += 1  # `p + u(p)` of the next voxel, less that of the voxel itself
    # The cube's edges, by the place of their other two coordinates.
    sides = list(product((0, 1), repeat=2))
    d = {(j, k): along_d[:, :, :, j : j + m, k : k + o] for j, k in sides}
    h = {(i, k): along_h[:, :, i : i + n, :, k : k + o] for i, k in sides}
    w = {(i, j): along_w[:, :, i : i + n, j : j + m] for i, j in sides}
    out = [_determinant(d[j, k], h[i, k], w[i, j]) for i, j, k in product((0, 1), repeat=3)]
    # Diagonals of the faces, from the vertex (0, 0, 0) and to the vertex (1, 1, 1).
    out.append(_determinant(h[0, 0] + w[0, 1], d[0, 0] + w[1, 0], d[0, 0] + h[1, 0]) / 2)
    out.append(_determinant(h[1, 0] + w[1, 1], d[1, 0] + w[1, 1], d[0, 1] + h[1, 1]) / 2)
    return torch.stack(out, dim=1)


def folded_cubes(displacement: Tensor, least: float = 0.0) -> Tensor:
    """Whether any of the ten determinants of a voxel cube is not above `least`, `[B, D - 1, H - 1, W - 1]` bool."""
    thick, last = 8, displacement.shape[2] - 1  # slabs of slices stay in the cache
    slabs = (displacement[:, :, start : min(start + thick, last) + 1] for start in range(0, last, thick))
    return torch.cat([(~(stencil_determinants(slab) > least)).any(dim=1) for slab in slabs], dim=1)


def folded(displacement: Tensor) -> Tensor:
    """Number of voxel cubes of each field in which any of the ten determinants is not positive, `[B]` int64."""
    return folded_cubes(displacement).flatten(1).sum(dim=1)


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """Determinant by central differences (one-sided at the border): the mean of the eight one-sided ones.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels.

    Returns:
        `[B, 1, D, H, W]`.
    """
    gradients = torch.gradient(displacement.float(), dim=(2, 3, 4))
    units = torch.eye(3, device=displacement.device).view(3, 1, 3, 1, 1, 1)
    return _determinant(*(g + unit for g, unit in zip(gradients, units, strict=True))).unsqueeze(1)


def log_jacobian(displacement: Tensor, floor: float = 1e-3) -> Tensor:
    """`log |J|` of `id + u`, determinants below `floor` counted as `floor`, `[B, 1, D, H, W]`.

    Of the inverse field, on the template's grid, it is the growth of each template voxel in the subject.
    """
    return jacobian_determinant(displacement).clamp(min=floor).log()
