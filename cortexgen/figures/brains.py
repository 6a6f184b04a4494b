"""Pictures of brains: pure functions that return matplotlib figures, without pyplot.

Volumes are `[D, H, W]` in memory order (a leading axis of 1 is dropped) on one grid. Left is on the left, anterior or
superior on top; in sagittal panels anterior is on the right. All panels of a figure have one scale.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from cortexgen.figures.colours import class_colour, paint
from cortexgen.figures.planes import (
    FAINT,
    INK,
    PLANES,
    Array,
    Plane,
    PlaneName,
    View,
    array,
    foreground,
    letters,
    window,
)
from cortexgen.figures.sheet import Sheet, three_planes
from cortexgen.io import Grid, atomic

UNDER_LABELS = 0.8
DPI = 150.0
COLUMNS = 6  # brains beside each other before a group goes on below


def to_png(figure: Figure, dpi: float | None = None) -> bytes:
    """The figure as PNG, the same bytes for the same figure; 150 dots an inch unless given."""
    content = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Software": None}, "pil_kwargs": {"compress_level": 4}}
    figure.savefig(content, format="png", dpi=dpi or DPI, facecolor=figure.get_facecolor(), **options)
    return content.getvalue()


def write_png(path: Path, figure: Figure) -> None:
    """Write the figure of `to_png`, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(to_png(figure))


def slices(
    volume: Tensor,
    grid: Grid,
    labels: Tensor | None = None,
    title: str | None = None,
    positions: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    contours: bool = False,
) -> Figure:
    """An axial, a coronal and a sagittal slice of one brain.

    Arguments:
        volume: `[D, H, W]`.
        labels: `[D, H, W]` integers, drawn over the image in a fixed colour per class (FreeSurfer's for the default
            template); 0 is left out.
        positions: voxel (D, H, W) that the slices go through; the middle of the brain unless given.
        classes: names by index; the classes that are seen are named below.
        contours: draw the outlines of the classes instead of filling them.

    Raises:
        ValueError: if a shape is not that of the grid, or `positions` lies outside it.
    """
    image = array(volume, grid)
    view = View(grid, foreground(image), positions)
    painted = None if labels is None else array(labels, grid)
    shades = window(image, dimmed=1.0 if painted is None or contours else UNDER_LABELS)
    sheet, panels = three_planes(view, image, shades, title, 0.1 if painted is None or classes is None else 0.62)
    overlays = [] if painted is None else [_overlay(axes, view, plane, painted, contours) for axes, plane in panels]
    seen = sorted(set().union(*overlays))
    if classes is not None and seen:
        handles = [Patch(color=class_colour(k), label=classes[k]) for k in seen]
        style = {"frameon": False, "labelcolor": INK, "fontsize": 7.5, "handlelength": 1, "columnspacing": 1.2}
        sheet.figure.legend(handles=handles, loc="lower center", ncols=min(6, len(handles)), **style)
    return sheet.figure


def cohort(
    rows: Mapping[str, Sequence[Tensor]],
    grid: Grid,
    plane: PlaneName | Sequence[PlaneName] = "axial",
    captions: Mapping[str, Sequence[str]] | None = None,
    labels: Mapping[str, Sequence[Tensor]] | None = None,
) -> Figure:
    """A sheet of brains, group by group, all at one scale, in one intensity window, and at the slice in their middle.

    Arguments:
        rows: name of each group to its volumes `[D, H, W]`.
        plane: what is shown of each brain; several planes stand one below the other.
        captions: a short line below each brain, under the same keys.
        labels: a label map `[D, H, W]` over each brain, under the same keys.

    Raises:
        ValueError: if there is no volume, or a shape is not that of the grid.
    """
    groups = {name: [array(volume, grid) for volume in volumes] for name, volumes in rows.items()}
    volumes = [volume for group in groups.values() for volume in group]
    if not volumes:
        raise ValueError("a cohort sheet needs at least one volume")
    view = View(grid, np.logical_or.reduce([foreground(volume) for volume in volumes]))
    planes: list[PlaneName] = [plane] if isinstance(plane, str) else list(plane)
    sizes = [view.size(PLANES[name]) for name in planes]
    columns = min(COLUMNS, max(len(group) for group in groups.values()))
    lines = [(name, start) for name, group in groups.items() for start in range(0, len(group), columns)]
    above = []
    for k, (_, start) in enumerate(lines):
        room = (0.2 if captions and k else 0) + (0.45 if start == 0 else 0.06)
        above += [room] + [0.03] * (len(planes) - 1)
    width = max(4.0, min(12.0, 2.0 * columns))
    widths, heights = [max(w for w, _ in sizes)] * columns, [h for _, h in sizes] * len(lines)
    sheet = Sheet(widths, heights, above, width, bottom=0.48 if captions else 0.28)
    sheet.places(view, planes)
    shades = window(*volumes, dimmed=UNDER_LABELS if labels else 1.0)
    for line, (name, start) in enumerate(lines):
        top = line * len(planes)
        if start == 0:
            sheet.text(sheet.lefts[0], sheet.tops[top] + 0.09, name, 11, ha="left", va="bottom", fontweight="bold")
        for k in range(start, min(start + columns, len(groups[name]))):
            for row, shown in enumerate(planes):
                axes = sheet.panel(top + row, k - start, view, PLANES[shown], groups[name][k], **shades)
                if labels:
                    _overlay(axes, view, PLANES[shown], array(labels[name][k], grid))
                if k == 0 and line == 0:
                    letters(axes, PLANES[shown])
            if captions:
                low = sheet.tops[top + len(planes) - 1] - sheet.heights[-1]
                centre = sheet.lefts[k - start] + sheet.widths[0] / 2
                sheet.text(centre, low - 0.03, captions[name][k], 8, va="top", color=FAINT)
    return sheet.figure


def _overlay(axes: Axes, view: View, plane: Plane, labels: Array, contours: bool = False) -> set[int]:
    """Draw a label map; returns the classes that are seen."""
    cut = view.cut(labels, plane)
    seen = {int(k) for k in np.unique(cut) if k}
    if not contours:
        view.draw(axes, plane, paint(cut, 0.45), interpolation="nearest")
        return seen
    for k in sorted(seen):
        view.lines(axes, plane, cut == k, [0.5], colors=[class_colour(k)], linewidths=0.8)
    return seen
