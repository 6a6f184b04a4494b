"""Measures of preprocessed scans: which are outliers of the cohort, and a chart of them."""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cortexgen.figures.charts import GREY, INK, _plain
from cortexgen.figures.colours import REAL, SYNTHETIC
from cortexgen.io.bids import Row

JUDGED_FROM, BEYOND = 8, 3.5  # scans; modified z-score
LEVELS, LETTER = 3, 0.0135  # of names in a panel of the chart; width of a letter as a share of the panel's


@dataclass(frozen=True)
class Measure:
    """A number that preprocessing reports of each scan.

    Attributes:
        least: what deviates from the median by less is no outlier, however alike the others are.
    """

    label: str
    unit: str = ""
    format: str = ".3f"
    least: float = math.inf

    @property
    def head(self) -> str:
        """The label and the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """With its unit."""
        return f"{value:{self.format}} {self.unit}".rstrip()


MEASURES = {
    "brain_volume_ml": Measure("Brain volume", "ml", ".0f", 50.0),
    "overlap": Measure("Overlap with template", least=0.01),
    "correlation": Measure("Correlation with template", least=0.05),
    "scale_1": Measure("Affine scale 1", least=0.02),
    "scale_2": Measure("Affine scale 2", least=0.02),
    "scale_3": Measure("Affine scale 3", least=0.02),
    "removed_ml": Measure("Removed", "ml", ".1f", 5.0),
    "seconds": Measure("Time", "s", ".0f"),
}


def flag_outliers(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Scans with a measure far from the cohort's, for somebody to look at.

    A value x is an outlier if its modified z-score, 0.6745 (x − m) / MAD, is beyond ±3.5, where m is the median and
    MAD the median of |x − m| (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993), and it is farther from m
    than `Measure.least`. Failed scans and missing values don't count; a measure that fewer than 8 scans have is not
    judged.

    Arguments:
        rows: of preprocess.tsv, with any of the keys of `MEASURES`.

    Returns:
        One sentence with numbers for each outlier, by participant_id, in the order of the rows.
    """
    found: dict[str, list[str]] = {str(row["participant_id"]): [] for row in rows}
    for key, measure in MEASURES.items():
        median, mad = _spread(rows, key)
        for row in rows:
            if counts(row, key) and abs(row[key] - median) > _fence(measure, mad):
                z = f"{0.6745 * (row[key] - median) / mad:+.3g}".replace("-", "−") if mad else "∞"
                text = f"{measure.label} = {measure.text(row[key])} (median {measure.text(median)}, modified z {z})"
                found[str(row["participant_id"])].append(text)
    return {name: texts for name, texts in found.items() if texts}


def counts(row: Row, key: str) -> bool:
    """Whether a scan was done and has a measure."""
    return row["status"] != "failed" and row.get(key) is not None and math.isfinite(row[key])


def _spread(rows: Sequence[Row], key: str) -> tuple[float, float]:
    """Median and MAD of a measure; an infinite MAD if too few scans have it."""
    values = np.array([row[key] for row in rows if counts(row, key)], dtype=float)
    median = float(np.median(values)) if values.size else 0.0
    return median, float(np.median(np.abs(values - median))) if values.size >= JUDGED_FROM else math.inf


def _fence(measure: Measure, mad: float) -> float:
    """How far from the median an outlier begins."""
    return max(BEYOND * mad / 0.6745, measure.least)


def measures_chart(rows: Sequence[Row], keys: Sequence[str], flagged: Container[str]) -> Figure:
    """A panel for each measure with a point for each scan that has it; the flagged are orange and named.

    Arguments:
        rows: of preprocess.tsv.
        keys: of `MEASURES`, each in at least one row.
        flagged: names of scans.
    """
    lines = math.ceil(len(keys) / 2)
    figure = Figure(figsize=(10, 1.35 * lines + 0.1), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for k, key in enumerate(keys):
        axes = figure.add_subplot(lines, 2, k + 1)
        _plain(axes)
        axes.set_title(MEASURES[key].head, loc="left", fontsize=9.5, color=INK)
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        axes.set_ylim(-0.35, 1.05)
        _strip(axes, key, [row for row in rows if counts(row, key)], flagged)
    return figure


def _strip(axes: Axes, key: str, rows: Sequence[Row], flagged: Container[str]) -> None:
    median, mad = _spread(rows, key)
    reach = _fence(MEASURES[key], mad)
    values = np.array([row[key] for row in rows], dtype=float)
    marked = np.array([str(row["participant_id"]) in flagged for row in rows])
    heights = np.random.default_rng(0).uniform(-0.2, 0.2, len(rows))
    axes.axvline(median, ymax=0.4, color=GREY, lw=1.2)
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.01 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    if math.isfinite(reach):
        axes.axvspan(median - reach, median + reach, ymax=0.4, color="#eef1f4", zorder=-1)
    axes.scatter(values[~marked], heights[~marked], s=12, color=REAL, alpha=0.55, lw=0)
    axes.scatter(values[marked], heights[marked], s=18, color=SYNTHETIC, lw=0)
    far = sorted(np.flatnonzero(marked), key=lambda j: -abs(values[j] - median))
    shares = {j: float((values[j] - low + margin) / (high - low + 2 * margin)) for j in far}
    for j, (level, side) in _places({j: (shares[j], str(rows[j]["participant_id"])) for j in far}).items():
        height = 0.42 + 0.22 * level
        axes.plot([values[j]] * 2, [heights[j], height], color=SYNTHETIC, lw=0.6)
        style: dict[str, Any] = {"ha": side, "va": "bottom", "parse_math": False}
        axes.text(values[j], height, str(rows[j]["participant_id"]), fontsize=8, color=INK, **style)


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
