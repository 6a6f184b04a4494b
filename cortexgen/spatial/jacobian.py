"""Jacobian determinants of `id + u`, and the test for folds.

A determinant by central differences can be positive where the trilinear field folds (a checkerboard is invisible to
it). Liu et al., "On finite difference Jacobian computation in deformable image registration" (IJCV 2024), split each
voxel cube into five tetrahedra in its two ways: eight corner determinants (every combination of forward and backward
differences) and two of the central tetrahedra. All ten positive means that the field, read as piecewise linear on those
tetrahedra, is injective there; with noise of half a voxel the trilinear reading can still turn inside such a cube, so
fields are checked on every grid that they are written on.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

Vector = Sequence[Tensor]  # its three components


def _cross(a: Vector, b: Vector) -> Vector:
    (a0, a1, a2), (b0, b1, b2) = a, b
    minors = ((a1, b2, a2, b1), (a2, b0, a0, b2), (a0, b1, a1, b0))
    return [torch.addcmul(p * q, r, s, value=-1) for p, q, r, s in minors]


def _dot(a: Vector, b: Vector) -> Tensor:
    return torch.addcmul(torch.addcmul(a[0] * b[0], a[1], b[1]), a[2], b[2])


def _added(a: Vector, b: Vector, sign: int = 1) -> Vector:
    return [torch.add(x, y, alpha=sign) for x, y in zip(a, b, strict=True)]


def _determinants(displacement: Tensor) -> list[Tensor]:
    """Those of `stencil_determinants`, `[B, D - 1, H - 1, W - 1]` each.

    A cube's edges are d, h and w, by the place of their other two coordinates. The normals of a slice's faces serve the
    cubes on both of its sides.
    """
    if displacement.ndim != 5 or displacement.shape[1] != 3 or min(displacement.shape[2:]) < 2:
        shape = tuple(displacement.shape)
        raise ValueError(f"expected a field [B, 3, D, H, W] of at least 2 voxels a side, got {shape}")
    u = displacement.float()
    n, m, o = (size - 1 for size in u.shape[2:])
    along_d, along_h, along_w = (u.diff(dim=axis) for axis in (2, 3, 4))
    for axis, along in enumerate((along_d, along_h, along_w)):
        along[:, axis] += 1  # `p + u(p)` of the next voxel, less that of the voxel itself
    d = [[along_d[:, :, :, j : j + m, k : k + o].unbind(dim=1) for k in (0, 1)] for j in (0, 1)]
    h = [along_h[..., k : k + o].unbind(dim=1) for k in (0, 1)]
    w = [along_w[:, :, :, j : j + m].unbind(dim=1) for j in (0, 1)]

    def slices(vector: Vector, i: int) -> Vector:
        return [x[:, i : i + n] for x in vector]

    normals = [[_cross(h[k], w[j]) for k in (0, 1)] for j in (0, 1)]
    out = [_dot(d[j][k], slices(normals[j][k], i)) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    # A central tetrahedron has a diagonal of the face before, the other one of the face behind, and an edge between.
    main, other = _added(h[0], w[1]), _added(h[0], w[0], -1)
    between = _added(d[0][0], slices(w[0], 1)), _added(d[0][1], slices(w[0], 1), -1)
    out.append(_dot(between[0], _cross(slices(other, 1), slices(main, 0))) / 2)
    out.append(_dot(between[1], _cross(slices(other, 0), slices(main, 1))) / 2)
    return out


def stencil_determinants(displacement: Tensor) -> Tensor:
    """The ten determinants of each voxel cube, 1 everywhere for the identity.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels, no side shorter than 2.

    Returns:
        `[B, 10, D - 1, H - 1, W - 1]`: the corners in binary order, then the two central tetrahedra.

    Raises:
        ValueError: if the shape is not that of a field.
    """
    return torch.stack(_determinants(displacement), dim=1)


def folded_cubes(displacement: Tensor, least: float = 0.0) -> Tensor:
    """Whether any of the ten determinants of a voxel cube is not above `least`, `[B, D - 1, H - 1, W - 1]` bool."""
    thick, last = 8, displacement.shape[2] - 1  # slabs of slices stay in the cache
    slabs = (displacement[:, :, start : min(start + thick, last) + 1] for start in range(0, last, thick))
    return torch.cat([~(reduce(torch.minimum, _determinants(slab)) > least) for slab in slabs], dim=1)


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
    a, b, c = ((g + unit).unbind(dim=1) for g, unit in zip(gradients, units, strict=True))
    return _dot(a, _cross(b, c)).unsqueeze(1)


def log_jacobian(displacement: Tensor, floor: float = 1e-3) -> Tensor:
    """`log |J|` of `id + u`, determinants below `floor` counted as `floor`, `[B, 1, D, H, W]`.

    Of the inverse field, on the template's grid, it is the growth of each template voxel in the subject.
    """
    return jacobian_determinant(displacement).clamp(min=floor).log()
