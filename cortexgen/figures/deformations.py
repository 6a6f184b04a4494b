"""Pictures of deformations, in the conventions of `cortexgen.figures.brains`."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from cortexgen.figures.colours import GROWTH
from cortexgen.figures.planes import Array, Plane, View, array, foreground, heat, window
from cortexgen.figures.sheet import plane_rows, three_planes
from cortexgen.io import Grid

LINES, DIMMED = "#ffd54a", 0.6


def registration(
    moving: Tensor,
    fixed: Tensor,
    warped: Tensor,
    displacement: Tensor,
    log_jacobian: Tensor,
    grid: Grid,
    title: str | None = None,
) -> Figure:
    """One registration in three planes: images, differences before and after, deformed grid, and log |J|.

    Images share one intensity window and both differences one scale.

    Arguments:
        moving, fixed, warped: `[D, H, W]`.
        displacement: u, `[3, D, H, W]` in voxels, pull-back on `grid`.
        log_jacobian: `[D, H, W]`, drawn over the warped image.

    Raises:
        ValueError: if a shape is not that of the grid.
    """
    before, target, after = (array(image, grid) for image in (moving, fixed, warped))
    errors = [np.abs(target - image) for image in (before, after)]
    field = array(displacement, grid, 3)
    brain = foreground(target)
    growth, strength, extend = _growth(array(log_jacobian, grid), foreground(after), None)
    shades, dimmed, differences = window(before, target, after), window(after, dimmed=DIMMED), heat(errors[0], brain)
    items: list[tuple[str, Array, dict[str, Any]]] = [
        ("Moving", before, shades),
        ("Fixed", target, shades),
        ("Warped", after, shades),
        ("|Fixed − moving|", errors[0], differences),
        ("|Fixed − warped|", errors[1], differences),
        ("Deformed grid", after, dimmed),
        ("log |J|", after, dimmed),
    ]
    view = View(grid, brain | foreground(after))
    sheet, rows = plane_rows(view, items, title, 14)
    for plane, panels in rows:
        draw_grid(panels[5], view, plane, field, every=10.0, width=0.5)
        view.draw(panels[6], plane, view.cut(growth, plane), **strength)
    for column in (3, 4):
        sheet.colour_bar(column, differences, "intensity", 0.42, "max")
    sheet.colour_bar(6, strength, "log |J|", 0.42, extend)
    return sheet.figure


def deformed_grid(
    displacement: Tensor, grid: Grid, background: Tensor | None = None, every: float = 8.0, title: str | None = None
) -> Figure:
    """A regular grid warped by a pull-back field: the lines of constant `p + u(p)` in the three planes.

    It is the warped image of a grid painted on the moving image; motion through the plane is not seen.

    Arguments:
        displacement: u, `[3, D, H, W]` in voxels.
        background: `[D, H, W]`, drawn dimmed below.
        every: distance of the lines in millimetres of the moving image.
    """
    field = array(displacement, grid, 3)
    image = None if background is None else array(background, grid)
    view = View(grid, None if image is None else foreground(image))
    shades: dict[str, float] = {} if image is None else window(image, dimmed=DIMMED)
    sheet, panels = three_planes(view, image, shades, title)
    for axes, plane in panels:
        draw_grid(axes, view, plane, field, every)
    return sheet.figure


def log_jacobian_map(
    log_jacobian: Tensor,
    background: Tensor,
    grid: Grid,
    title: str | None = None,
    limit: float | None = None,
    label: str = "log |J|",
) -> Figure:
    """log |J| in three planes: red above 0, blue below, fading towards 0, over the dimmed image of the brain.

    Arguments:
        log_jacobian, background: `[D, H, W]`.
        limit: of the colour scale, symmetric about 0; the brain's 99th percentile unless given.
        label: of the colour bar, to say what growth it is.
    """
    image = array(background, grid)
    growth, strength, extend = _growth(array(log_jacobian, grid), foreground(image), limit)
    view = View(grid, foreground(image))
    sheet, panels = three_planes(view, image, window(image, dimmed=DIMMED), title, bottom=0.55)
    for axes, plane in panels:
        view.draw(axes, plane, view.cut(growth, plane), **strength)
    sheet.colour_bar(1, strength, label, 0.4, extend)
    return sheet.figure


def _growth(values: Array, brain: Array, limit: float | None) -> tuple[Array, dict[str, Any], str]:
    """Values inside the brain, 0 outside; how they are drawn, up to a round limit unless given; what goes beyond it."""
    values = np.where(binary_fill_holes(brain), values, 0)
    if limit is None:
        top = float(np.quantile(np.abs(values[brain]), 0.99)) if brain.any() else 0.0
        limit = max(math.ceil(round(top * 20, 3)) / 20, 0.05)
    strength = {"cmap": GROWTH, "vmin": -limit, "vmax": limit}
    return values, strength, "both" if np.abs(values).max() > limit else "neither"


def draw_grid(axes: Axes, view: View, plane: Plane, displacement: Array, every: float, width: float = 0.7) -> None:
    """Lines of constant `p + u(p)`, in millimetres, for the two axes in the plane."""
    x, y = view.coordinates(plane.columns), view.coordinates(plane.rows)
    for axis, place in ((plane.columns, x[None, :]), (plane.rows, y[:, None])):
        source = place + view.cut(displacement[axis], plane) * view.grid.spacing[axis]
        middle = view.positions[axis] * view.grid.spacing[axis]
        first = math.floor((source.min() - middle) / every)
        levels = middle + every * np.arange(first, math.ceil((source.max() - middle) / every) + 1)
        view.lines(axes, plane, source, levels, colors=LINES, linewidths=width)
