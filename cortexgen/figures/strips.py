"""A chart of measures of scans: which stand out, by name."""

import math
from collections.abc import Container, Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cortexgen.figures.axes import BAND, GREY, INK, panels
from cortexgen.figures.colours import REAL, SYNTHETIC
from cortexgen.figures.marks import mark

LEVELS, LETTER = 3, 0.0135  # of names in a panel; width of a letter as a share of the panel's
Scans = Sequence[tuple[str, float]]
Strip = tuple[str, Scans, float, float]


def strip_charts(strips: Sequence[Strip], flagged: Container[str]) -> Figure:
    """A panel for each measure with a point for each scan that has it; the flagged are orange and named.

    Arguments:
        strips: of each measure the title, name and value of one scan or more, their median, and how far from it values
            are usual, infinite where nobody can say.
        flagged: names of scans.
    """
    figure, found = panels(len(strips), 2, 10, 1.35, 0.1)
    for axes, (title, values, median, reach) in zip(found, strips, strict=True):
        axes.set_title(title, loc="left", fontsize=9.5, color=INK)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_ylim(-0.35, 1.05)
        _draw(axes, values, median, reach, flagged)
    return figure


def _draw(axes: Axes, scans: Scans, median: float, reach: float, flagged: Container[str]) -> None:
    names, values = [name for name, _ in scans], np.array([value for _, value in scans])
    marked = np.array([name in flagged for name in names])
    heights = np.random.default_rng(0).uniform(-0.2, 0.2, len(names))
    axes.axvline(median, ymax=0.4, color=GREY, lw=1.2)
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    if math.isfinite(reach):
        axes.axvspan(median - reach, median + reach, ymax=0.4, color=BAND, zorder=-1)
    for those, size, colour, alpha in ((~marked, 12, REAL, 0.55), (marked, 18, SYNTHETIC, 1.0)):
        points = axes.scatter(values[those], heights[those], s=size, color=colour, alpha=alpha, lw=0)
        mark(points, *(f"{names[j]}: {values[j]:.4g}" for j in np.flatnonzero(those)))
    far = sorted(np.flatnonzero(marked), key=lambda j: -abs(values[j] - median))
    shares = {j: float((values[j] - low + margin) / (high - low + 2 * margin)) for j in far}
    for j, (level, side) in _places({j: (shares[j], names[j]) for j in far}).items():
        height = 0.42 + 0.22 * level
        axes.plot([values[j]] * 2, [heights[j], height], color=SYNTHETIC, lw=0.6)
        axes.text(values[j], height, names[j], fontsize=8, color=INK, ha=side, va="bottom", parse_math=False)


def _places(names: Mapping[int, tuple[float, str]]) -> dict[int, tuple[int, str]]:
    """Level and alignment of names at places in [0, 1]; a name that would lie on another or its line is left out.

    Outer names should come first: they take the upper levels, below which there is room for inner ones.
    """
    placed: dict[int, tuple[int, str]] = {}
    taken: list[tuple[int, float, float, float]] = []  # level, place, start and end of the text
    for key, (x, name) in names.items():
        width = len(name) * LETTER
        inwards = ("left", "right") if x < 0.5 else ("right", "left")
        for level, side in product(reversed(range(LEVELS)), inwards):
            start = x if side == "left" else x - width
            box = (level, x, start, start + width)
            if start >= 0 and start + width <= 1 and not any(_overlap(box, other) for other in taken):
                placed[key] = level, side
                taken.append(box)
                break
    return placed


def _overlap(one: tuple[int, float, float, float], other: tuple[int, float, float, float]) -> bool:
    """Whether two names, or the line of one and the other name, lie on each other."""
    low, high = sorted((one, other))
    beside = low[3] < high[2] or low[2] > high[3]
    return not beside if low[0] == high[0] else low[2] <= high[1] <= low[3]
