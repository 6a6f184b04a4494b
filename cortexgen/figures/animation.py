"""Deformations in motion, in the conventions of `cortexgen.figures.brains`."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cortexgen.figures.brains import to_png
from cortexgen.figures.deformations import LINES, draw_grid
from cortexgen.figures.planes import FAINT, PLANES, Array, View, array, foreground, letters, window
from cortexgen.figures.sheet import Sheet
from cortexgen.io import Grid, atomic

WIDTH, DPI = 6.0, 100
LINES_MM, LIT = 12.0, 0.85
HOLD = 0.8  # seconds
GREYS, MIXES = 96, 8


def animate(
    path: Path,
    frames: Sequence[Tensor] | Tensor,
    fixed: Tensor,
    grid: Grid,
    displacements: Sequence[Tensor] | Tensor | None = None,
    seconds: float = 2.0,
    etas: Sequence[float] | None = None,
) -> None:
    """Write a continuous deformation (DiffuseMorph's Algorithm 1) as a GIF that plays forth and back.

    The warped image stands above the fixed one in three planes, at one scale and in one intensity window. The same
    frames give the same bytes; the file is written atomically.

    Arguments:
        frames: N warped images, `[D, H, W]` each, from the moving image towards the fixed one.
        fixed: `[D, H, W]`.
        displacements: u of each frame, `[3, D, H, W]` in voxels, drawn as the grid that they deform, a line every
            12 mm of the moving image.
        seconds: from the first frame to the last; both are shown 0.8 s longer than the others.
        etas: of the frames; evenly from 0 to 1 unless given.

    Raises:
        ValueError: if there are fewer than two frames, their displacements or etas are not as many, or a shape is not
            that of the grid.
    """
    images = [array(frame, grid) for frame in frames]
    fields = [None] * len(images) if displacements is None else [array(u, grid, 3) for u in displacements]
    levels = np.linspace(0, 1, len(images)) if etas is None else np.asarray(etas, dtype=float)
    if len(images) < 2 or not len(images) == len(fields) == len(levels):
        counts = f"{len(images)} frames, {len(fields)} displacements and {len(levels)} etas"
        raise ValueError(f"expected two or more frames with a displacement and an eta each, got {counts}")
    target = array(fixed, grid)
    view = View(grid, np.logical_or.reduce([foreground(image) for image in (target, images[0], images[-1])]))
    shades = window(target, *images, dimmed=1.0 if displacements is None else LIT)
    palette = _palette()
    drawn = []
    for image, field, eta in zip(images, fields, levels, strict=True):
        figure = _frame(view, image, target, field, f"Warped, η = {eta:.2f}", shades)
        picture = Image.open(io.BytesIO(to_png(figure, DPI))).convert("RGB")
        drawn.append(picture.quantize(palette=palette, dither=Image.Dither.NONE))
    turn = len(drawn) - 1
    step = max(round(100 * seconds / turn), 2) * 10  # milliseconds; GIF counts in hundredths of a second
    times = [step + (round(1000 * HOLD) if k in (0, turn) else 0) for k in range(2 * turn)]
    shown = drawn + drawn[-2:0:-1]
    with atomic(path) as temporary:
        shown[0].save(temporary, "GIF", save_all=True, append_images=shown[1:], duration=times, loop=0)


def _frame(
    view: View, image: Array, target: Array, field: Array | None, caption: str, shades: dict[str, float]
) -> Figure:
    """One picture. The fixed image lies below everything that moves, where GIF stores it only once."""
    sizes = [view.size(plane) for plane in PLANES.values()]
    height = max(h for _, h in sizes)
    sheet = Sheet([w for w, _ in sizes], [height, height], [0.3, 0.3], WIDTH, bottom=0.3)
    for row, (volume, text) in enumerate(((image, caption), (target, "Fixed"))):
        sheet.text(sheet.lefts[0], sheet.tops[row] + 0.06, text, 11, ha="left", va="bottom", fontweight="bold")
        for column, (name, plane) in enumerate(PLANES.items()):
            axes = sheet.panel(row, column, view, plane, volume, **shades)
            if row == 0 and field is not None:
                draw_grid(axes, view, plane, field, LINES_MM, 0.5)
            if row:
                letters(axes, plane)
                middle = sheet.lefts[column] + sheet.widths[column] / 2
                sheet.text(middle, 0.15, f"{name.capitalize()}, {view.place(plane)}", 8, color=FAINT)
    return sheet.figure


def _palette() -> Image.Image:
    """Greys, and greys mixed with the colour of the lines: every colour of a frame, the same in all frames."""
    greys = np.linspace(0, 255, GREYS)[:, None].repeat(3, axis=1)
    share = np.linspace(0, 1, MIXES + 1)[1:, None, None]
    mixed = share * 255 * np.array(to_rgb(LINES)) + (1 - share) * greys[:: GREYS // 12]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.vstack([greys, mixed.reshape(-1, 3)]).round().astype(np.uint8).tobytes())
    return palette
