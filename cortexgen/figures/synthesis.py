"""Pictures of synthesis by reverse diffusion, in the conventions of `cortexgen.figures.brains`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cortexgen.figures.planes import Array, View, array, foreground, heat, window
from cortexgen.figures.sheet import plane_rows
from cortexgen.io import Grid

COLUMN = 1.8


def synthesis(
    moving: Tensor,
    fixed: Tensor,
    states: Sequence[tuple[int, Tensor]],
    result: Tensor,
    grid: Grid,
    title: str | None = None,
) -> Figure:
    """DiffuseMorph's Algorithm 2 in three planes: from the noised moving image to one like the fixed image.

    All images share one intensity window; what noise takes beyond it is cut off.

    Arguments:
        moving, fixed, result: `[D, H, W]` in [0, 1].
        states: step t and x_t `[D, H, W]` on the images' scale, the start first.
        title: at the top.

    Raises:
        ValueError: if there is no state, or a shape is not that of the grid.
    """
    if not states:
        raise ValueError("expected the start of the reverse diffusion at least, got no states")
    before, target, after = (array(image, grid) for image in (moving, fixed, result))
    error, brain = np.abs(after - target), foreground(target)
    shades, difference = window(before, target, after), heat(error, brain)
    items: list[tuple[str, Array, dict[str, Any]]] = [("Moving", before, shades)]
    items += [(f"{'' if k else 'Start, '}t = {t}", array(x, grid), shades) for k, (t, x) in enumerate(states)]
    items += [("Result", after, shades), ("Fixed", target, shades), ("|Result − fixed|", error, difference)]
    view = View(grid, brain | foreground(before))
    sheet, _ = plane_rows(view, items, title, COLUMN * len(items))
    sheet.colour_bar(len(items) - 1, difference, "intensity", 0.42, "max")
    return sheet.figure
