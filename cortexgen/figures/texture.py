"""Curves of how images look: each set's against the band that real brains span."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from cortexgen.figures.axes import INK, panels
from cortexgen.figures.colours import GROUPS, REAL
from cortexgen.figures.comparison import plain
from cortexgen.figures.marks import mark_curve
from cortexgen.figures.planes import Array

LINES = GROUPS[1:]


class Curve(NamedTuple):
    """One curve of real brains and of the sets.

    Attributes:
        title, unit: of the panel, and of its axis.
        at: places along the axis, `[X]`.
        low, real, high: of real brains, `[X]`: what 95 % of them lie within, and their mean.
        sets: mean of each, `[X]`.
        logarithmic: whether the values vary by factors.
    """

    title: str
    unit: str
    at: Array
    low: Array
    real: Array
    high: Array
    sets: Mapping[str, Array]
    logarithmic: bool = False


def texture_curves(found: Sequence[Curve]) -> Figure:
    """A panel a curve: real brains' mean in their band, and a line a set, which looks alike in all panels.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not found:
        raise ValueError("expected curves, got none")
    figure, axes_of = panels(len(found), 3, 10, 2.6, 0.5)
    order = list(dict.fromkeys(name for curve in found for name in curve.sets))
    for axes, curve in zip(axes_of, found, strict=True):
        axes.fill_between(curve.at, curve.low, curve.high, color=REAL, alpha=0.2, lw=0)
        axes.plot(curve.at, curve.real, color=REAL, lw=2, label="real brains")
        mark_curve(axes, curve.at, curve.real, "real brains")
        for name, values in curve.sets.items():
            k = order.index(name)
            dashes = ("-", "--", ":")[k // len(LINES) % 3]
            axes.plot(curve.at, values, dashes, color=LINES[k % len(LINES)], lw=1.2, label=plain(name, 24))
            mark_curve(axes, curve.at, values, name)
        if curve.logarithmic:
            axes.set_yscale("log")
        axes.set_title(curve.title, loc="left", fontsize=9.5, color=INK)
        axes.set_xlabel(curve.unit, fontsize=8.5, color=INK)
    handles = {label: line for axes in axes_of for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def curve(title: str, unit: str, sets: Mapping[str, Sequence[Mapping[str, object]]], logarithmic: bool) -> Curve:
    """A curve of rows that hold `at`, `real` (an interval) and `mean`, of each set; at the places of the first."""
    first = next(iter(sets.values()))
    at = np.array([row["at"] for row in first], dtype=float)
    real, low, high = (
        np.array([getattr(row["real"], key) for row in first], dtype=float) for key in ("value", "low", "high")
    )
    lines: dict[str, Array] = {}
    for name, rows in sets.items():
        means = {row["at"]: row["mean"] for row in rows}
        lines[name] = np.array([means.get(x, np.nan) for x in at.tolist()], dtype=float)
    return Curve(title, unit, at, low, real, high, lines, logarithmic)
