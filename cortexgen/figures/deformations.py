"""Pictures of deformations, in the conventions of `cortexgen.figures.brains`."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from cortexgen.figures.colours import GROWTH
from cortexgen.figures.planes import PLANES, Array, Plane, View, array, foreground, letters, window
from cortexgen.figures.sheet import Sheet, three_planes
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
    limit: float | None = None,
) -> Figure:
    """One registration in three planes: images, differences before and after, deformed grid, and log |J|.

    Images share one intensity window and both differences one scale.

    Arguments:
        moving, fixed, warped: `[D, H, W]`.
        displacement: u, `[3, D, H, W]` in voxels, pull-back on `grid`.
        log_jacobian: `[D, H, W]`, drawn over the warped image.
        limit: of the colour scale of log |J|; from the data unless given.

    Raises:
        ValueError: if a shape is not that of the grid.
    """
    before, target, after = (array(image, grid) for image in (moving, fixed, warped))
    errors = [np.abs(target - image) for image in (before, after)]
    field = array(displacement, grid, 3)
    brain = foreground(target)
    growth, limit, extend = _scaled(array(log_jacobian, grid), foreground(after), limit)
    shades, dimmed = window(before, target, after), window(after, dimmed=DIMMED)
    heat: dict[str, Any] = {"cmap": "inferno", "vmin": 0.0, "vmax": float(np.quantile(errors[0][brain], 0.99)) or 1.0}
    items: dict[str, tuple[Array, dict[str, Any]]] = {
        "Moving": (before, shades),
        "Fixed": (target, shades),
        "Warped": (after, shades),
        "|Fixed − moving|": (errors[0], heat),
        "|Fixed − warped|": (errors[1], heat),
        "Deformed grid": (after, dimmed),
        "log |J|": (after, dimmed),
    }
    view = View(grid, brain | foreground(after))
    sizes = [view.size(plane) for plane in PLANES.values()]
    widths, heights = [max(w for w, _ in sizes)] * len(items), [h for _, h in sizes]
    sheet = Sheet(widths, heights, [0.62 if title else 0.32, 0.06, 0.06], 14, bottom=0.6)
    sheet.title(title)
    for row, plane in enumerate(PLANES.values()):
        panels = [sheet.panel(row, column, view.size(plane)) for column in range(len(items))]
        for axes, (image, style) in zip(panels, items.values(), strict=True):
            view.draw(axes, plane, view.cut(image, plane), **style)
        draw_grid(panels[5], view, plane, field, every=10.0, width=0.5)
        _draw_growth(panels[6], view, plane, growth, limit)
        letters(panels[0], plane)
    for column, name in enumerate(items):
        sheet.heading(0, column, name)
    for column in (3, 4):
        sheet.colour_bar(column, ScalarMappable(Normalize(0, heat["vmax"]), heat["cmap"]), "intensity", 0.42, "max")
    sheet.colour_bar(6, ScalarMappable(Normalize(-limit, limit), GROWTH), "log |J|", 0.42, extend)
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
    sheet = three_planes(view, title)
    for column, plane in enumerate(PLANES.values()):
        axes = sheet.panel(0, column, view.size(plane))
        if image is None:
            view.draw(axes, plane, None)
        else:
            view.draw(axes, plane, view.cut(image, plane), **window(image, dimmed=DIMMED))
        draw_grid(axes, view, plane, field, every)
        letters(axes, plane)
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
    growth, limit, extend = _scaled(array(log_jacobian, grid), foreground(image), limit)
    view = View(grid, foreground(image))
    sheet = three_planes(view, title, bottom=0.55)
    for column, plane in enumerate(PLANES.values()):
        axes = sheet.panel(0, column, view.size(plane))
        view.draw(axes, plane, view.cut(image, plane), **window(image, dimmed=DIMMED))
        _draw_growth(axes, view, plane, growth, limit)
        letters(axes, plane)
    scale = ScalarMappable(Normalize(-limit, limit), GROWTH)
    sheet.colour_bar(1, scale, label, 0.4, extend)
    return sheet.figure


def _scaled(values: Array, brain: Array, limit: float | None) -> tuple[Array, float, str]:
    """Values inside the brain, 0 outside; a limit, round unless given; and which ends of the scale go beyond it."""
    values = np.where(binary_fill_holes(brain), values, 0)
    if limit is None:
        top = float(np.quantile(np.abs(values[brain]), 0.99)) if brain.any() else 0.0
        limit = max(math.ceil(round(top * 20, 3)) / 20, 0.05)
    return values, limit, "both" if np.abs(values).max() > limit else "neither"


def draw_grid(axes: Axes, view: View, plane: Plane, displacement: Array, every: float, width: float = 0.7) -> None:
    """Lines of constant `p + u(p)`, in millimetres, for the two axes in the plane."""
    x, y = view.coordinates(plane.columns), view.coordinates(plane.rows)
    for axis, place in ((plane.columns, x[None, :]), (plane.rows, y[:, None])):
        source = place + view.cut(displacement[axis], plane) * view.grid.spacing[axis]
        middle = view.positions[axis] * view.grid.spacing[axis]
        first = math.floor((source.min() - middle) / every)
        levels = middle + every * np.arange(first, math.ceil((source.max() - middle) / every) + 1)
        axes.contour(x, y, source, levels=levels, colors=LINES, linewidths=width, linestyles="solid")


def _draw_growth(axes: Axes, view: View, plane: Plane, values: Array, limit: float) -> None:
    view.draw(axes, plane, view.cut(values, plane), cmap=GROWTH, vmin=-limit, vmax=limit)
