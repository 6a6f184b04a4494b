"""Charts of numbers: regional volumes, classes and training curves, as matplotlib figures without pyplot."""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.figures.axes import GREY, INK, RULE, boxes, panels
from cortexgen.figures.colours import GROUPS, REAL, SYNTHETIC
from cortexgen.figures.marks import mark_curve
from cortexgen.figures.planes import Array

Curve = tuple[Array, Array]


def volume_distributions(
    names: Sequence[str],
    real: Tensor,
    synthetic: Tensor,
    title: str | None = None,
    cohorts: tuple[str, str] = ("Real", "Synthetic"),
) -> Figure:
    """Regional volumes of two cohorts relative to the real mean, in percent: boxes over one point a brain.

    The axis is logarithmic, because volumes vary by factors: -50% and +100% are equally far from 0.

    Arguments:
        names: of the R regions.
        real: volumes `[N, R]` in any unit.
        synthetic: volumes `[M, R]` in the same unit.
        cohorts: what to call the two.

    Raises:
        ValueError: if the shapes do not fit, or a cohort is empty.
    """
    shapes = tuple(real.shape), tuple(synthetic.shape)
    if any(len(s) != 2 or s[0] == 0 or s[1] != len(names) for s in shapes):
        raise ValueError(f"expected volumes [N, {len(names)}] and [M, {len(names)}], got {shapes[0]} and {shapes[1]}")
    values = [cohort.detach().cpu().double().numpy() for cohort in (real, synthetic)]
    mean = values[0].mean(axis=0)
    ratios = [np.where(mean > 0, v / np.where(mean > 0, mean, 1), np.nan) for v in values]
    valid = np.concatenate([r[np.isfinite(r) & (r > 0)] for r in ratios])
    low, high = (valid.min(), valid.max()) if valid.size else (0.9, 1.1)
    low, high = max(min(low / 1.05, 0.9), 0.1), min(max(high * 1.05, 1.1), 10.0)

    figure, (axes,) = panels(1, 1, 9, 1.1 + 0.4 * len(names), 0)
    shown = [np.where(np.isfinite(r), np.clip(r, low, high), np.nan) for r in ratios]
    boxes(axes, names, list(zip(cohorts, shown, strict=True)), (REAL, SYNTHETIC))
    axes.axvline(1, color=GREY, lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([1 + t / 100 for t in _percent_ticks(low, high)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _percent(x)))
    axes.set_xlabel(f"Volume relative to the {cohorts[0].lower()} mean", color=INK, fontsize=9)
    if title:
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
    return figure


def class_distributions(
    names: Sequence[str], values: Mapping[str, Tensor], heading: str, bounded: bool, ground: str | None = None
) -> Figure:
    """A measure of each class by method: horizontal boxes over one point an image.

    Arguments:
        names: of the R classes.
        values: `[N, R]` of each method, NaN where there is none.
        heading: of the axis, which begins at 0.
        bounded: whether it ends at 1.
        ground: the method that is grey.

    Raises:
        ValueError: if a shape does not fit.
    """
    for method, found in values.items():
        if found.ndim != 2 or found.shape[1] != len(names):
            raise ValueError(f"{method}: expected values [N, {len(names)}], got {tuple(found.shape)}")
    figure, (axes,) = panels(1, 1, 9, 1.1 + len(names) * (0.1 + 0.14 * len(values)), 0)
    others = [method for method in values if method != ground]
    colours = [GREY if m == ground else GROUPS[others.index(m) % len(GROUPS)] for m in values]
    boxes(axes, names, [(method, found.double().numpy()) for method, found in values.items()], colours)
    axes.set_xlim(0, 1 if bounded else None)
    axes.set_xlabel(heading, color=INK, fontsize=9)
    return figure


def _percent(ratio: float) -> str:
    return f"{round(100 * (ratio - 1)):+d}%".replace("-", "−").replace("+0%", "0%")


def _percent_ticks(low: float, high: float) -> list[int]:
    """Round percentages between two ratios that do not crowd on a logarithmic axis."""
    chosen: list[int] = []
    for tick in (0, -20, 25, -50, 100, -75, 300, -10, 10, -35, 50, 200, 600, -5, 5):
        ratio = 1 + tick / 100
        apart = 0.055 * math.log(high / low)
        if low <= ratio <= high and all(abs(math.log(ratio / (1 + c / 100))) > apart for c in chosen):
            chosen.append(tick)
    return sorted(chosen)


def read_metrics(paths: Path | Sequence[Path]) -> tuple[dict[str, Curve], list[float]]:
    """The curves of one run from Lightning's `metrics.csv`, or from the parts of a resumed run in order.

    A step that was repeated after a resume counts as the later part has it.

    Returns:
        Each metric's steps and finite values, and the steps at which the run was resumed.

    Raises:
        UserError: if a file is missing or holds no steps.
    """
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
    parts = [_read_part(path) for path in files]
    resumed = [float(part.index.min()) for part in parts[1:]]
    kept = [part[part.index < min(resumed[k:], default=math.inf)] for k, part in enumerate(parts)]
    last = pd.concat(kept).groupby(level="step").last()
    found = {name: last[name].dropna() for name in last}
    return {name: (c.index.to_numpy(float), c.to_numpy(float)) for name, c in found.items() if len(c)}, resumed


def _read_part(path: Path) -> pd.DataFrame:
    """Its metrics by step, NaN where one is not a finite number."""
    try:
        read = pd.read_csv(path).apply(pd.to_numeric, errors="coerce").replace([math.inf, -math.inf], math.nan)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError):
        read = pd.DataFrame()
    if "step" not in read or read["step"].isna().all():
        raise UserError(f"{path}: expected the metrics.csv of a Lightning run, found no rows with a step")
    return read.dropna(subset="step").set_index("step").drop(columns="epoch", errors="ignore")


def training_curves(csv_path: Path | Sequence[Path], title: str | None = None) -> Figure:
    """The metrics of a run over its steps, training and validation of one metric in one panel.

    Arguments:
        csv_path: Lightning's `metrics.csv`, or the parts of a resumed run in order; a dashed line marks each resume.

    Raises:
        UserError: if a file is missing or holds no metric.
    """
    curves, resumed = read_metrics(csv_path)
    metrics: dict[str, dict[str, Curve]] = defaultdict(dict)
    for name, curve in sorted(curves.items()):
        metric, stage = _split(name)
        metrics[metric][stage] = max(curve, metrics[metric].get(stage, curve), key=lambda c: len(c[0]))
    if not metrics:
        raise UserError(f"{csv_path}: it holds no metrics")
    columns = min(3, len(metrics))
    figure, grid = panels(len(metrics), columns, max(4.0 * columns, 5), 2.6, 0.4 if title else 0)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    order = sorted(metrics, key=lambda metric: (metric.startswith("lr"), metric != "loss", metric))
    for k, (axes, metric) in enumerate(zip(grid, order, strict=True)):
        stages = metrics[metric]
        axes.set_title(metric, loc="left", fontsize=9.5, color=INK)
        for stage, (steps, values) in stages.items():
            _curve(axes, steps, values, stage)
        for step in resumed:
            axes.axvline(step, color=GREY, lw=0.8, ls="--")
        everything = np.concatenate([values for _, values in stages.values()])
        if everything.min() > 0 and everything.max() > 50 * everything.min():
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(color=RULE, lw=0.7)
        if len(stages) > 1:
            axes.legend(frameon=False, fontsize=8)
        if k + columns >= len(metrics):
            axes.set_xlabel("step", fontsize=8.5, color=INK)
    return figure


def _split(name: str) -> tuple[str, str]:
    """The metric and its stage: "train/loss_step" is ("loss", "train")."""
    name = re.sub(r"_(step|epoch)$", "", name)
    match = re.match(r"(train|val|valid|test)[/_]+(.+)", name)
    return (match[2], match[1]) if match else (name, "")


def _curve(axes: Axes, steps: Array, values: Array, stage: str) -> None:
    """One curve; above 100 points drawn faintly, with a running median of a fiftieth of them."""
    colour = SYNTHETIC if stage.startswith(("val", "test")) else REAL
    mark_curve(axes, steps, values, stage)
    if len(values) <= 100:
        marker = "o" if len(values) <= 30 else None
        axes.plot(steps, values, color=colour, lw=1.4, marker=marker, ms=3, label=stage or None)
        return
    axes.plot(steps, values, color=colour, lw=0.6, alpha=0.3)
    smooth = pd.Series(values).rolling(2 * (len(values) // 100) + 1, center=True, min_periods=1).median()
    axes.plot(steps, smooth, color=colour, lw=1.5, label=stage or None)
