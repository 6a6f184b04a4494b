"""Volumes and fields between grids. An affine maps voxel indices, in axis order, to world millimetres."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.spatial.precision import full_precision
from cortexgen.spatial.warp import Interpolation, Padding, identity, sample


def _positions(places: Tensor, affine: Tensor, affine_to: Tensor) -> Tensor:
    """Places `[B, 3, D, H, W]` in voxels of the grid of `affine_to`, in voxels of the grid of `affine`."""
    between = torch.linalg.inv(affine.double()) @ affine_to.double()
    return turned(places, between[:3, :3]).add_(between[:3, 3].float().to(places.device).view(1, 3, 1, 1, 1))


def turned(field: Tensor, matrix: Tensor) -> Tensor:
    """Each vector of a field `[B, 3, D, H, W]` times a matrix `[3, 3]`; between grids most of its numbers are zero."""
    out = torch.zeros_like(field)
    for i, row in enumerate(matrix.tolist()):
        for j, weight in enumerate(row):
            if abs(weight) > 1e-12:
                out[:, i].add_(field[:, j], alpha=weight)
    return out


def _along(volume: Tensor, axis: int, matrix: Tensor) -> Tensor:
    """Multiply axis 0, 1 or 2 of the space of `[B, C, D, H, W]` by a matrix `[m, n]`."""
    return (matrix @ volume.movedim(2 + axis, -2)).movedim(-2, 2 + axis) if axis < 2 else volume @ matrix.T


def _smoothing(n: int, factor: float, device: torch.device) -> Tensor:
    """The triangle of half-width `factor` voxels as a matrix `[n, n]`, borders repeated."""
    reach = math.ceil(factor) - 1
    offsets = torch.arange(-reach, reach + 1, device=device)
    weights = 1 - offsets.abs() / factor
    columns = (torch.arange(n, device=device)[:, None] + offsets).clamp(0, n - 1)
    matrix = torch.zeros(n, n, device=device)
    return matrix.scatter_add_(1, columns, (weights / weights.sum()).expand(n, -1))


def _interpolation(positions: Tensor, n: int, padding: Padding) -> Tensor:
    """Linear interpolation at `positions` `[m]` of n samples, as a matrix `[m, n]`."""
    if padding == "border":
        positions = positions.clamp(0, n - 1)
    distance = (positions[:, None] - torch.arange(n, device=positions.device)).abs()
    return (1 - distance).clamp(min=0)


@full_precision
def antialias(volume: Tensor, factors: Sequence[float]) -> Tensor:
    """Smooth each axis by the triangle of half-width `factor` voxels, for sampling every `factor`-th one.

    A factor of 2 is the filter [1 2 1] / 4; factors up to 1 leave the axis as it is. Borders are repeated.
    """
    volume = volume.float()
    for axis, factor in enumerate(factors):
        if factor > 1 + 1e-6:
            volume = _along(volume, axis, _smoothing(volume.shape[2 + axis], factor, volume.device))
    return volume


@full_precision
def resample(
    volume: Tensor,
    affine: Tensor,
    shape: Sequence[int],
    affine_to: Tensor,
    mode: Interpolation = "linear",
    padding: Padding = "zeros",
) -> Tensor:
    """A volume on another grid, smoothed first along axes that get coarser (linear mode only).

    Arguments:
        volume: `[B, C, D, H, W]` on the grid of `affine` `[4, 4]`.
        shape, affine_to: the grid wanted.

    Returns:
        `[B, C, *shape]`.
    """
    affine, affine_to = affine.double().to(volume.device), affine_to.double().to(volume.device)
    between = torch.linalg.inv(affine) @ affine_to
    factors = between[:3, :3].abs().amax(dim=1)
    if _oblique(between) or mode == "nearest":
        smooth = antialias(volume, factors.tolist()) if mode == "linear" else volume
        return sample(smooth, _positions(identity(shape, volume.device), affine, affine_to), mode, padding)
    return _axis_by_axis(volume.float(), between, shape, factors.tolist(), padding)


def _oblique(between: Tensor) -> bool:
    return bool((between[:3, :3] - torch.diag(between.diagonal()[:3])).abs().max() > 1e-6)


def _axis_by_axis(
    volume: Tensor, between: Tensor, shape: Sequence[int], factors: Sequence[float], padding: Padding
) -> Tensor:
    """Trilinear interpolation where voxels go to voxels `between @ p` along their own axes; smoothed as `antialias`."""
    if (shift := _shift(between, volume.shape[2:], shape)) is not None:
        return F.pad(volume, shift, "replicate" if padding == "border" else "constant")
    for axis, (size, factor) in enumerate(zip(shape, factors, strict=True)):
        n = volume.shape[2 + axis]
        places = torch.arange(size, device=volume.device) * between[axis, axis] + between[axis, 3]
        matrix = _interpolation(places, n, padding).float()
        if factor > 1 + 1e-6:
            matrix = matrix @ _smoothing(n, factor, volume.device)
        volume = _along(volume, axis, matrix)
    return volume


def _shift(between: Tensor, shape: Sequence[int], shape_to: Sequence[int]) -> list[int] | None:
    """What to pad a volume with, W first, where the two grids share voxels; None where they share none."""
    low = (-between[:3, 3]).round()
    rest = between - torch.eye(4).to(between)
    rest[:3, 3] += low
    if rest.abs().max() > 1e-6:
        return None
    before = [int(n) for n in low]
    after = [m - n - k for m, n, k in zip(shape_to, shape, before, strict=True)]
    if any(n + min(k, j) < 1 for n, k, j in zip(shape, before, after, strict=True)):
        return None
    return [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair]


@full_precision
def resample_field(
    field: Tensor,
    affine: Tensor,
    shape: Sequence[int],
    affine_to: Tensor,
    before: Tensor | None = None,
    after: Tensor | None = None,
) -> Tensor:
    """A displacement or velocity on another grid: sampled there, its vectors turned by `u_b = A_b^-1 A_a u_a`.

    With world affines before and after it, the displacement of `x -> after(F(before(x)))`, F being the field's map: a
    registration in template space becomes one between images of their own spaces.

    Arguments:
        field: `[B, 3, D, H, W]` in voxels of the grid of `affine` `[4, 4]`.
        shape, affine_to: the grid wanted.
        before, after: `[4, 4]` in millimetres, identities unless given.

    Returns:
        `[B, 3, *shape]` in voxels of that grid. Outside the old grid it has the border's value.
    """
    eye = torch.eye(4, dtype=torch.float64)
    start, end = (eye if m is None else m.double().cpu() for m in (before, after))
    old, new = affine.double().cpu(), affine_to.double().cpu()
    back = torch.linalg.inv(new)
    between = torch.linalg.inv(old) @ start @ new
    vectors = turned(field.float(), (back @ end @ old)[:3, :3])
    if _oblique(between):
        places = _positions(identity(shape, field.device), old.to(field.device), (start @ new).to(field.device))
        out = sample(vectors, places, padding="border")
    else:
        out = _axis_by_axis(vectors, between.to(field.device), shape, (1, 1, 1), "border")
    if before is None and after is None:
        return out
    return out + affine_displacement(back @ end @ start @ new, shape, field.device)


def affine_displacement(affine: Tensor, shape: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """`A p - p` at the voxels p of a grid, `[1, 3, *shape]` float32; A is `[4, 4]`, in voxels of the grid."""
    rest = (affine.double().cpu() - torch.eye(4, dtype=torch.float64)).float().to(device)
    places = torch.einsum("ij,bjdhw->bidhw", rest[:3, :3], identity(shape, device))
    return places + rest[:3, 3].view(1, 3, 1, 1, 1)


@full_precision
def positions_in(affine: Tensor, displacement: Tensor, affine_to: Tensor) -> Tensor:
    """Where the voxels of a grid go, in voxels of another grid.

    Arguments:
        affine: `[4, 4]` of the grid that positions are wanted in.
        displacement: u, `[B, 3, D, H, W]` in voxels of the grid of `affine_to` `[4, 4]`.

    Returns:
        `A^-1 A_to (p + u(p))`, `[B, 3, D, H, W]`.
    """
    return _positions(identity(displacement.shape[2:], displacement.device) + displacement, affine, affine_to)


def coarse_shape(shape: Sequence[int], factor: int) -> tuple[int, int, int]:
    """Size of the grid of every `factor`-th voxel, the first one included."""
    d, h, w = (-(-n // factor) for n in shape)
    return d, h, w


@full_precision
def from_coarse(field: Tensor, shape: Sequence[int], factor: int) -> Tensor:
    """A field on the grid of every `factor`-th voxel, brought to the full grid.

    Trilinear interpolation on nested grids leaves the map as it is where `(n - 1) / factor` is whole; voxels beyond the
    last coarse one repeat its displacement.

    Arguments:
        field: `[B, 3, d, h, w]` in voxels of the coarse grid, of size `coarse_shape(shape, factor)`.

    Returns:
        `[B, 3, *shape]` in voxels of the full grid.
    """
    if factor == 1:
        return field
    between = torch.diag(torch.tensor([1 / factor] * 3 + [1.0], dtype=torch.float64, device=field.device))
    return factor * _axis_by_axis(field.float(), between, shape, (1, 1, 1), "border")
