"""What volumes of different origin need to be compared: one grid and one range of intensities."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.atlas.intensity import AIR, constant_background, normalize
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.nifti import to_file, to_memory

BACKGROUND = 0.1  # of all voxels at the least: air has one value, at the bottom of the range
ROUNDING = 1e-3  # by which [0, 1] may be left
UNDERSHOOT = 0.1  # of the maximum, below zero: what interpolation leaves


def to_unit(image: Tensor, source: object) -> tuple[Tensor, str | None]:
    """Bring intensities to [0, 1] by `normalize`, with zero at the background.

    Arguments:
        image: any shape.
        source: what to name in an error.

    Returns:
        The image, and what was done to it, None if it lay in [0, 1].

    Raises:
        UserError: if values are negative and the background isn't at the bottom, as after z-scoring within a mask:
            nothing says where zero was.
    """
    level = constant_background(image) if image.ndim == 4 else None
    if level and level > AIR * float(image.max() - level):
        return normalize((image - level).clamp(min=0), source), f"a background of {level:.3g} taken as zero"
    low, high = float(image.min()), float(image.max())
    if low >= 0:
        kind = None if high <= 1 + ROUNDING else "up to 255" if high <= 255 else "above 255"
        return normalize(image, source), kind and f"intensities {kind}, divided by their robust maximum"
    bottom = image <= low + 0.02 * (high - low)
    zero = image == 0
    if bottom.float().mean() >= max(BACKGROUND, float(zero.float().mean())):
        level = float(image[bottom].median())
        done = "intensities of both signs, their background taken as zero, divided by their robust maximum"
        return normalize(image - level, source), done
    if low < -UNDERSHOOT * high:
        expected = "expected [0, 1], 0-255, or another range with the background at its bottom"
        raise UserError(f"{source}: intensities from {low:.3g} to {high:.3g} with the background between, {expected}")
    return normalize(image, source), "intensities slightly below zero cut, divided by their robust maximum"


def in_unit(image: Tensor, source: object) -> Tensor:
    """An image as it is.

    Raises:
        UserError: if it has values outside [0, 1].
    """
    low, high = float(image.min()), float(image.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise UserError(f"{source}: intensities from {low:.3g} to {high:.3g}, expected [0, 1]")
    return image.clamp(0, 1)


def covered(grid: Grid, by: Grid) -> float:
    """Share of a grid's field of view that lies in another's."""
    axes = [(np.arange(20) + 0.5) / 20 * n - 0.5 for n in grid.shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    there = np.linalg.solve(by.affine, grid.affine @ np.vstack([points, np.ones(points.shape[1])]))[:3].T
    return float(((there > -0.5) & (there < np.array(by.shape) - 0.5)).all(axis=1).mean())


def overlap(a: Grid, b: Grid) -> float:
    """Share of the smaller field of view that lies in the larger one."""
    small, large = sorted((a, b), key=lambda g: g.voxel_volume * float(np.prod(g.shape)))
    return covered(small, large)


def cut(volume: Tensor, found: Grid, grid: Grid) -> Tensor | None:
    """A volume `[1, D, H, W]` cut and padded with zeros to a grid whose voxels lie on its own; None if they don't."""
    low = np.linalg.solve(found.affine, grid.affine[:, 3])[:3].round().astype(int).tolist()
    high = [first + n - 1 for first, n in zip(low, grid.shape, strict=True)]
    if not found.box(low, high).matches(grid):
        return None
    ends = zip(low[::-1], high[::-1], found.shape[::-1], strict=True)
    return F.pad(volume, [side for first, last, n in ends for side in (-first, last + 1 - n)])


def laid_on(volume: Tensor, found: Grid, grid: Grid, source: object) -> Tensor:
    """A volume `[1, D, H, W]` of a file whose header is not to be trusted, its axes taken as those of a grid's file.

    Arguments:
        found: the grid that its header claims.

    Raises:
        UserError: if the sizes differ.
    """
    array, _ = to_file(volume[0].numpy(), found)
    expected, affine = to_file(np.broadcast_to(np.int8(0), grid.shape), grid)
    if array.shape != expected.shape:
        sizes = [" x ".join(map(str, shape)) for shape in (array.shape, expected.shape)]
        raise UserError(f"{source}: {sizes[0]} voxels, expected {sizes[1]}, as its affine is to be ignored")
    return torch.from_numpy(to_memory(array, affine)[0])[None]
