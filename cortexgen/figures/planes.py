"""Slices of a volume.

Everything is in neurological convention: left is on the left, anterior or superior on top, and in sagittal panels
anterior is on the right. Panels have physical coordinates, millimetres from the centre of the first voxel, so that a
voxel covers its whole extent and contours lie where the image is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from torch import Tensor

from cortexgen.io import Grid

PlaneName = Literal["axial", "coronal", "sagittal"]
Array = np.ndarray[Any, Any]

BACKGROUND, INK, FAINT = "#000000", "#ececec", "#a3a3a3"
FOREGROUND = 0.05
MARGIN_MM = 7.0


@dataclass(frozen=True)
class Plane:
    """Slices across `axis` of a volume; the axes `rows` and `columns` run up and to the right."""

    axis: int
    rows: int
    columns: int

    @property
    def letters(self) -> str:
        """What lies to the left, right, bottom and top."""
        ends = ("IS", "PA", "LR")
        return ends[self.columns] + ends[self.rows]


PLANES: dict[PlaneName, Plane] = {"axial": Plane(0, 1, 2), "coronal": Plane(1, 0, 2), "sagittal": Plane(2, 0, 1)}


def array(volume: Tensor, grid: Grid, channels: int = 1) -> Array:
    """A volume `[D, H, W]` or field `[channels, D, H, W]` as float32 array; a leading axis of 1 is dropped.

    Raises:
        ValueError: if its shape is not that of the grid.
    """
    shape = tuple(grid.shape) if channels == 1 else (channels, *grid.shape)
    if tuple(volume.shape) not in (shape, (1, *shape)):
        raise ValueError(f"expected shape {shape}, that of the grid, got {tuple(volume.shape)}")
    return volume.detach().cpu().float().numpy().reshape(shape)


def foreground(volume: Array) -> Array:
    """Where a volume is brighter than 5% of its robust maximum, bool."""
    return volume > FOREGROUND * np.quantile(volume, 0.999)


def window(*images: Array, dimmed: float = 1.0) -> dict[str, float]:
    """An intensity window for all images together, as arguments of `View.draw`."""
    values = np.concatenate([image[foreground(image)] for image in images])
    top = float(np.quantile(values, 0.998)) if values.size else 1.0
    return {"vmin": 0.0, "vmax": top / dimmed}


def heat(error: Array, brain: Array) -> dict[str, Any]:
    """How differences are drawn, as arguments of `View.draw`: up to their 99th percentile in the brain."""
    top = float(np.quantile(error[brain], 0.99)) if brain.any() else 0.0
    return {"cmap": "inferno", "vmin": 0.0, "vmax": top or 1.0}


class View:
    """Which slices of a grid are shown, and which part of them.

    Arguments:
        grid: of the volumes.
        brain: what to crop to, `[D, H, W]` bool; None shows the whole grid.
        positions: voxel (D, H, W) that the slices go through; the middle of the brain unless given.

    Raises:
        ValueError: if `positions` lies outside the grid.
    """

    def __init__(self, grid: Grid, brain: Array | None = None, positions: Sequence[int] | None = None) -> None:
        self.grid = grid
        self.ranges = [(0, n - 1) for n in grid.shape]
        if brain is not None and brain.any():
            for axis, (n, step) in enumerate(zip(grid.shape, grid.spacing, strict=True)):
                counts = brain.sum(axis=tuple({0, 1, 2} - {axis}))
                inside = np.flatnonzero(counts > 0.01 * counts.max())
                margin = round(MARGIN_MM / step)
                self.ranges[axis] = max(int(inside[0]) - margin, 0), min(int(inside[-1]) + margin, n - 1)
        centre = [(low + high) // 2 for low, high in self.ranges]
        self.positions = [int(p) for p in (centre if positions is None else positions)]
        if any(not 0 <= p < n for p, n in zip(self.positions, grid.shape, strict=True)):
            raise ValueError(f"positions {self.positions} lie outside the grid {tuple(grid.shape)}")

    def size(self, plane: Plane) -> tuple[float, float]:
        """Width and height of the plane's panel in millimetres."""
        sides = [(high - low + 1) * step for (low, high), step in zip(self.ranges, self.grid.spacing, strict=True)]
        return sides[plane.columns], sides[plane.rows]

    def coordinates(self, axis: int) -> Array:
        """Millimetres of the voxels along an axis."""
        return np.arange(self.grid.shape[axis]) * self.grid.spacing[axis]

    def cut(self, volume: Array, plane: Plane) -> Array:
        """The slice of a volume, `[rows, columns]`."""
        return volume.take(self.positions[plane.axis], axis=plane.axis)

    def place(self, plane: Plane) -> str:
        """The position of the slice in the world, as "z = 4 mm"; a slice number where the grid is oblique."""
        world = 2 - plane.axis
        direction = self.grid.affine[:3, plane.axis] / self.grid.spacing[plane.axis]
        if abs(direction[world]) < 0.999:
            return f"slice {self.positions[plane.axis]}"
        millimetres = self.grid.affine[world] @ np.array([*self.positions, 1.0])
        return f"{'xyz'[world]} = {round(millimetres):d} mm".replace("-", "−")

    def draw(self, axes: Axes, plane: Plane, cut: Array | None, **style: Any) -> None:
        """Draw a slice, `[rows, columns]` or RGBA `[rows, columns, 4]`, and crop the axes to the view."""
        steps, shape = self.grid.spacing, self.grid.shape
        if cut is not None:
            x, y = ((-0.5 * steps[a], (shape[a] - 0.5) * steps[a]) for a in (plane.columns, plane.rows))
            style = {"cmap": "gray", "interpolation": "bilinear", **style}
            axes.imshow(cut, origin="lower", extent=(*x, *y), **style)
        for limit, a in ((axes.set_xlim, plane.columns), (axes.set_ylim, plane.rows)):
            limit((self.ranges[a][0] - 0.5) * steps[a], (self.ranges[a][1] + 0.5) * steps[a])
        axes.set_aspect("equal")

    def lines(self, axes: Axes, plane: Plane, cut: Array, levels: Any, **style: Any) -> None:
        """Draw where a slice, `[rows, columns]`, crosses levels."""
        x, y = self.coordinates(plane.columns), self.coordinates(plane.rows)
        axes.contour(x, y, cut, levels=levels, linestyles="solid", **style)


def letters(axes: Axes, plane: Plane) -> None:
    """Write L, R, A, P, S, I along the edges of a panel."""
    spots = (
        (0.02, 0.5, "left", "center"),
        (0.98, 0.5, "right", "center"),
        (0.5, 0.015, "center", "bottom"),
        (0.5, 0.985, "center", "top"),
    )
    stroke = withStroke(linewidth=1.5, foreground=BACKGROUND)
    style: dict[str, Any] = {"color": INK, "fontsize": 8, "path_effects": [stroke]}
    for letter, (x, y, horizontal, vertical) in zip(plane.letters, spots, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical, snap=False, **style)
