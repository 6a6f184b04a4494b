"""White axes for charts of numbers, and the marks that several charts share."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from cortexgen.figures.marks import mark, spread
from cortexgen.figures.planes import Array

INK, GREY, RULE, BAND, STRIPE = "#222222", "#9aa0a6", "#e6e8ea", "#e9edf1", "#f5f6f7"
MANY = 60  # points, from which on they are a picture in their chart, and its box alone tells


def panels(n: int, columns: int, width: float, height: float, above: float = 0.3) -> tuple[Figure, list[Axes]]:
    """A white figure with n plain panels in rows of at most `columns`.

    Arguments:
        width: of the figure in inches.
        height: of each row.
        above: inches more for all rows together.
    """
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    figure = Figure(figsize=(width, height * rows + above), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    found = [figure.add_subplot(rows, columns, k + 1) for k in range(n)]
    for axes in found:
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(colors=INK, labelsize=8, width=0.6)
    return figure, found


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Make striped lines of a panel, the first on top; the first panel of a row alone names them."""
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=8.5)
    place = axes.get_subplotspec()
    axes.tick_params(axis="y", length=0, labelleft=place is None or place.is_first_col())
    axes.grid(axis="x", color=RULE, lw=0.7)
    for k in range(1, len(names), 2):
        axes.axhspan(k - 0.5, k + 0.5, color=STRIPE, zorder=-1)


def box(axes: Axes, values: Array, y: float, colour: str, label: str, height: float = 0.5) -> None:
    """A horizontal box over one point a value, those that aren't finite left out; they tell their values.

    Boxes span the quartiles with the median; whiskers reach to 1.5 times that range.
    """
    values = values[np.isfinite(values)]
    heights = y + height * np.random.default_rng(0).uniform(-0.38, 0.38, len(values))
    points = axes.scatter(values, heights, s=5, color=colour, alpha=0.45, lw=0, zorder=2.5)
    if len(values) > MANY:
        points.set_rasterized(True)
    else:
        mark(points, *(f"{label}: {value:.4g}" for value in values))
    line = {"color": colour, "lw": 1.1}
    style: dict[str, Any] = {"boxprops": line, "whiskerprops": line, "medianprops": {**line, "lw": 2}}
    style |= {"capprops": {"lw": 0}, "orientation": "horizontal", "manage_ticks": False}
    drawn = axes.boxplot(values, positions=[y], widths=height, showfliers=False, **style)
    if len(values):
        mark(drawn["boxes"][0], spread(values, label))


def boxes(axes: Axes, names: Sequence[str], groups: Sequence[tuple[str, Array]], colours: Sequence[str]) -> None:
    """A line a name with a box for each group, and a legend of the groups with their numbers.

    Arguments:
        names: of the K lines.
        groups: name and values `[N, K]` of each, NaN where there is none.
        colours: of the groups.
    """
    step = 0.8 / len(groups)
    for k in range(len(names)):
        for i, ((group, values), colour) in enumerate(zip(groups, colours, strict=True)):
            place = k + step * (i - (len(groups) - 1) / 2)
            box(axes, values[:, k], place, colour, f"{names[k]}, {group}", 0.75 * step)
    name_lines(axes, [name.replace("-", " ") for name in names])
    handles = [Patch(color=c, label=f"{name} (n = {len(v)})") for (name, v), c in zip(groups, colours, strict=True)]
    columns = min(4, len(handles))
    axes.figure.legend(handles=handles, loc="outside upper right", ncols=columns, frameon=False, fontsize=9)
