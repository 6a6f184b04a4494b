"""Charts and pictures that set groups of brains beside real ones, as matplotlib figures without pyplot."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator
from torch import Tensor

from cortexgen.figures.axes import BAND, GREY, INK, box, name_lines, panels
from cortexgen.figures.colours import REAL, SYNTHETIC
from cortexgen.figures.marks import mark
from cortexgen.figures.planes import FAINT, PLANES, Array, PlaneName, View, array, foreground, letters, window
from cortexgen.figures.sheet import Sheet
from cortexgen.io import Grid
from cortexgen.metrics.resampling import Interval

WIDTH, BESIDE = 10, 4  # inches; panels in a row
FAR = 4.0  # effect sizes


def plain(text: str, longest: int | None = None) -> str:
    """Text that matplotlib draws as it is, without formulas, cut at `longest` letters."""
    text = text if longest is None or len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def effect_forest(
    regions: Sequence[str], effects: Mapping[str, Sequence[Interval | None]], small: float, label: str
) -> Figure:
    """Effect sizes with their intervals, a line a region and a panel a set, the largest mean |d| on top.

    Intervals that reach beyond the axis end in an arrow. An axis that reaches beyond 4 is linear to ±1 and logarithmic
    from there on.

    Arguments:
        regions: names.
        effects: of each set, in the order of the regions; None where there is none.
        small: half the width of the shaded band about 0.
        label: of the axis.

    Raises:
        ValueError: if there is no set, or one has another number of effects than regions.
    """
    if not effects or any(len(found) != len(regions) for found in effects.values()):
        counts = {name: len(found) for name, found in effects.items()}
        raise ValueError(f"expected {len(regions)} effects of each set, got {counts}")
    values = np.array([[math.nan if e is None else e.value for e in found] for found in effects.values()])
    weights = np.where(np.isfinite(values), np.abs(values), 0).mean(axis=0)
    order = sorted(range(len(regions)), key=lambda k: -weights[k])
    ends = [abs(x) for found in effects.values() for e in found if e for x in (e.low, e.high) if math.isfinite(x)]
    limit = 1.1 * min(max(ends, default=1), max(1.0, 1.6 * float(weights.max(initial=0)), 2.0))
    limit = max(limit, 1.1 * float(np.nanmax(np.abs(values), initial=0)))
    figure, forests = panels(len(effects), BESIDE, WIDTH, 0.22 * len(regions) + 0.7)
    for axes, (name, found) in zip(forests, effects.items(), strict=True):
        axes.axvspan(-small, small, color=BAND, zorder=0)
        axes.axvline(0, color=GREY, lw=0.8, zorder=1)
        for y, k in enumerate(order):
            effect = found[k]
            if effect is None:
                continue
            low, high = max(effect.low, -limit), min(effect.high, limit)
            (line,) = axes.plot([low, high], [y, y], color=SYNTHETIC, lw=1.3)
            (point,) = axes.plot([effect.value], [y], "o", color=SYNTHETIC, ms=4.5)
            for drawn in (line, point):
                mark(drawn, f"{regions[k]}: {effect.value:.2f} [{effect.low:.2f}, {effect.high:.2f}]")
            for end, marker, beyond in ((low, "<", effect.low < -limit), (high, ">", effect.high > limit)):
                if beyond:
                    axes.plot([end], [y], marker, color=SYNTHETIC, ms=4, clip_on=False)
        axes.set_title(plain(name, 24), loc="left", fontsize=10, fontweight="bold", color=INK)
        if limit > FAR:
            axes.set_xscale("symlog", linthresh=1, linscale=1)
            ticks = [x for x in (1, 3, 10, 30, 100) if x <= limit]
            axes.set_xticks([-x for x in reversed(ticks)] + [0, *ticks], minor=False)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(-limit, limit)
        name_lines(axes, [plain(regions[k].replace("-", " ")) for k in order])
        axes.set_xlabel(label, color=INK, fontsize=8.5)
    return figure


def distributions(groups: Mapping[str, Array], measures: Sequence[str]) -> Figure:
    """Small distributions, a panel a measure and a line a group: boxes over one point a brain, the first group blue.

    Arguments:
        groups: values `[N, K]` of each, NaN where there is none.
        measures: names of the K, with their units.

    Raises:
        ValueError: if a shape does not fit.
    """
    for name, values in groups.items():
        if values.ndim != 2 or values.shape[1] != len(measures):
            raise ValueError(f"{name}: expected values [N, {len(measures)}], got {tuple(values.shape)}")
    names = [f"{plain(name, 24)} ({len(values)})" for name, values in groups.items()]
    figure, found = panels(len(measures), BESIDE, WIDTH, 0.32 * len(groups) + 0.8)
    for k, (axes, measure) in enumerate(zip(found, measures, strict=True)):
        for y, (group, values) in enumerate(groups.items()):
            box(axes, values[:, k], y, SYNTHETIC if y else REAL, f"{measure}, {group}")
        name_lines(axes, names)
        axes.set_title(measure, loc="left", fontsize=9.5, color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def distance_histograms(found: Sequence[tuple[str, str, Tensor, Tensor, float]]) -> Figure:
    """Shares of samples by their distance to the nearest training subject, beside those of the reference.

    Arguments:
        found: of each panel the title, the unit, distances of samples `[M]` and of the reference `[N]`, and a threshold
            below which a sample may be a copy.

    Raises:
        ValueError: if there is nothing to draw.
    """
    if not found:
        raise ValueError("expected distances of one set or more, got none")
    figure, histograms = panels(len(found), 2, WIDTH, 1.9)
    for axes, (title, unit, samples, reference, threshold) in zip(histograms, found, strict=True):
        both = [reference.double().numpy(), samples.double().numpy()]
        top = 1.05 * max(values.max() for values in both) or 1.0
        bins = np.linspace(0, top, 36).tolist()
        for values, colour, whose in zip(both, (REAL, SYNTHETIC), ("the reference", "the set"), strict=True):
            share = np.full(len(values), 100 / len(values))
            heights, edges, bars = axes.hist(values, bins, weights=share, color=colour, alpha=0.55)
            for k, bar in enumerate(bars):  # type: ignore[arg-type]
                mark(bar, f"{whose}: {heights[k]:.1f} % at {edges[k]:.3g} to {edges[k + 1]:.3g}")
                bar.set_visible(bool(heights[k]))
            axes.hist(values, bins, weights=share, color=colour, histtype="step", lw=1.1)
        axes.axvline(threshold, color=INK, lw=0.9, ls="--")
        axes.set_xlim(0, top)
        axes.set_title(plain(title), loc="left", fontsize=9.5, color=INK)
        axes.set_xlabel(f"distance, {unit}", fontsize=8.5, color=INK)
        axes.set_ylabel("% of brains", fontsize=8.5, color=INK)
    handles = [Patch(color=c, alpha=0.7, label=t) for c, t in ((SYNTHETIC, "the set"), (REAL, "the reference"))]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def neighbours(
    pairs: Sequence[tuple[str, str, Tensor, Tensor]], grid: Grid, positions: Sequence[int] | None = None
) -> Figure:
    """Samples beside their nearest training subjects and the difference, a row a pair, in an axial and a coronal slice.

    Images share one intensity window and differences one scale.

    Arguments:
        pairs: of each the caption above, the subject's name, and sample and subject `[D, H, W]`.
        positions: voxel (D, H, W) of the slices; the middle of the brains unless given.

    Raises:
        ValueError: if there is no pair, or a shape is not that of the grid.
    """
    if not pairs:
        raise ValueError("expected one pair or more, got none")
    images = [(array(sample, grid), array(subject, grid)) for *_, sample, subject in pairs]
    every = [image for pair in images for image in pair]
    view = View(grid, np.logical_or.reduce([foreground(image) for image in every]), positions)
    shades: dict[str, Any] = {**window(*every)}
    heat: dict[str, Any] = {"cmap": "inferno", "vmin": 0.0, "vmax": shades["vmax"] / 2}
    planes: tuple[PlaneName, ...] = ("axial", "coronal")
    widths = [view.size(PLANES[name])[0] for name in planes for _ in range(3)]
    heights = [max(view.size(PLANES[name])[1] for name in planes)] * len(pairs)
    sheet = Sheet(widths, heights, [0.55] * len(pairs), 12, bottom=0.3)
    for row, ((caption, name, *_), (sample, subject)) in enumerate(zip(pairs, images, strict=True)):
        top = sheet.tops[row] + 0.3
        sheet.text(sheet.lefts[0], top, plain(caption), 9.5, ha="left", va="bottom", fontweight="bold")
        shown = (("sample", sample, shades), (plain(name), subject, shades))
        for column, plane in enumerate(PLANES[name] for name in planes):
            for k, (title, image, style) in enumerate((*shown, ("|difference|", np.abs(sample - subject), heat))):
                axes = sheet.panel(row, 3 * column + k, view, plane, image, **style)
                sheet.heading(row, 3 * column + k, title, 8.5, color=FAINT)
                if row == k == 0:
                    letters(axes, plane)
    sheet.places(view, planes)
    return sheet.figure
