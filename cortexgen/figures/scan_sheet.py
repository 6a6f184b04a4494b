"""Quality control of one preprocessed scan: its sheet."""

import textwrap
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.figures.planes import FAINT, INK, PLANES, Array, Plane, View, array, foreground, letters, window
from cortexgen.figures.sheet import Sheet
from cortexgen.io import Grid
from cortexgen.io.paths import within
from cortexgen.spatial import resample

MASK, TEMPLATE, NOTE = "#ff4b3e", "#35c8ff", "#ffd54a"
COLUMNS, WIDTH, CHARACTERS = 6, 14.0, 150
REACH = 0.1, 0.9  # of the brain's extent, between which slices lie
STRUCTURES = ("white-matter", "ventricle")  # in the names of classes: what is easily seen in a T1w


def sheet_path(out: Path, scan: str) -> Path:
    """The PNG of a scan "sub-01" or "sub-01_ses-1".

    Raises:
        UserError: if the path would leave `out`.
    """
    return within(out, scan.split("_")[0], "figures", f"{scan}_desc-preproc_T1w.png")


def subject_sheet(
    image: Tensor,
    mask: Tensor,
    grid: Grid,
    template: Template,
    title: str,
    notes: Sequence[str] = (),
    native: tuple[Tensor, Tensor, Grid] | None = None,
) -> Figure:
    """A preprocessed brain in template space, with the outlines of its mask and of the template on it.

    Six axial, coronal and sagittal slices lie at the same places for all scans on one grid. The template's outlines are
    those of its brain, and of its white matter and ventricles if it has labels with such names.

    Arguments:
        image: `[1, D, H, W]` or `[D, H, W]`.
        mask: of the brain, the same shape.
        grid: of both, in the template's world.
        notes: printed in yellow below the title: what somebody should look at.
        native: image, mask and grid before anything was done to them, for another row below.

    Raises:
        ValueError: if a shape is not that of its grid.
    """
    brain = array(mask, grid) > 0.5
    shapes = _outlines(template, grid)
    view = View(grid, brain | (shapes[0] > 0.5))
    outlines = [*((shape, TEMPLATE, 0.9 if k == 0 else 0.6) for k, shape in enumerate(shapes)), (brain, MASK, 1.0)]
    prepared = array(image, grid)
    rows = [(prepared, brain, outlines, _cuts(view, p, shapes[0] > 0.5, COLUMNS)) for p in PLANES.values()]
    if native is not None:
        own = native[2]
        whole, inside = array(native[0], own), array(native[1], own) > 0.5
        full = View(own, foreground(whole) | inside)
        pairs = [_cuts(full, plane, inside, COLUMNS // 3, (0.35, 0.65)) for plane in PLANES.values()]
        rows.append((whole, inside, [(inside, MASK, 1.0)], [cut for pair in pairs for cut in pair]))

    lines = [line for note in notes for line in textwrap.wrap(note, CHARACTERS)]
    above = [0.24] * len(rows)
    above[0] += 0.6 + 0.19 * len(lines)
    if native is not None:
        above[-1] += 0.34
    sizes = [[v.size(plane) for v, plane in row] for *_, row in rows]
    widths = [max(w for w, _ in column) for column in zip(*sizes, strict=True)]
    sheet = Sheet(widths, [max(h for _, h in row) for row in sizes], above, WIDTH, bottom=0.36)
    plain: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
    sheet.text(sheet.lefts[0], sheet.height - 0.12, title, 12, fontweight="bold", **plain)
    for k, line in enumerate(lines):
        sheet.text(sheet.lefts[0], sheet.height - 0.38 - 0.19 * k, line, 9.5, color=NOTE, **plain)
    _headline(sheet, 0, f"In template space: {template.name}, ", grid)
    if native is not None:
        _headline(sheet, len(rows) - 1, "As it was scanned: ", native[2])
    for row, (volume, inside, outlines, shown) in enumerate(rows):
        shades = window(np.where(inside, volume, 0) if inside.any() else volume)
        for column, (v, plane) in enumerate(shown):
            sheet.heading(row, column, v.place(plane), 9, color=FAINT)
            axes = sheet.panel(row, column, v, plane, volume, **shades)
            for shape, colour, width in outlines:
                cut = v.cut(shape, plane)
                if cut.min() < 0.5 < cut.max():
                    v.lines(axes, plane, cut, [0.5], colors=[colour], linewidths=width)
            if column == 0 or shown[column - 1][1] is not plane:
                letters(axes, plane)
    named = "brain, white matter, ventricles" if len(shapes) > 1 else "brain"
    handles = [Line2D([], [], color=MASK, label="Brain mask")]
    handles.append(Line2D([], [], color=TEMPLATE, label=f"{template.name}: {named}"))
    style: dict[str, Any] = {"frameon": False, "labelcolor": INK, "fontsize": 9, "borderaxespad": 0.3}
    sheet.figure.legend(handles=handles, loc="lower left", ncols=2, **style)
    return sheet.figure


def _outlines(template: Template, grid: Grid) -> list[Array]:
    """The template's brain and structures on a grid, between 0 and 1."""
    shapes = [binary_fill_holes(template.mask[0].numpy())]
    if template.labels is not None:
        for structure in STRUCTURES:
            classes = [k for k, name in enumerate(template.classes) if structure in name.lower()]
            if classes:
                shapes.append(np.isin(template.labels[0].numpy(), classes))
    if grid.matches(template.grid):
        return [shape.astype(np.float32) for shape in shapes]
    volumes = torch.from_numpy(np.stack(shapes)).float()[None]
    return list(resample(volumes, template.grid.torch_affine, grid.shape, grid.torch_affine)[0].numpy())


def _cuts(
    view: View, plane: Plane, inside: Array, count: int, reach: tuple[float, float] = REACH
) -> list[tuple[View, Plane]]:
    """Views at slices across a plane, evenly through a mask; through the whole grid if it is empty."""
    occupied = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {plane.axis})))
    low, high = (occupied[0], occupied[-1]) if occupied.size else (0, inside.shape[plane.axis] - 1)
    cuts = []
    for place in low + (high - low) * np.linspace(*reach, count):
        cuts.append((copy(view), plane))
        cuts[-1][0].positions = [round(place) if axis == plane.axis else p for axis, p in enumerate(view.positions)]
    return cuts


def _headline(sheet: Sheet, row: int, text: str, grid: Grid) -> None:
    text += "voxels of " + " × ".join(f"{side:.3g}" for side in reversed(grid.spacing)) + " mm"
    sheet.text(sheet.lefts[0], sheet.tops[row] + 0.28, text, 10.5, ha="left", va="bottom", parse_math=False)
