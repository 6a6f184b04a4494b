"""Charts of numbers: regional volumes and training curves, as matplotlib figures without pyplot."""

import csv
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.figures.colours import REAL, SYNTHETIC
from cortexgen.figures.planes import Array

INK, GREY = "#222222", "#9aa0a6"
Curve = tuple[Array, Array]


def volume_distributions(
    names: Sequence[str],
    real: Tensor,
    synthetic: Tensor,
    title: str | None = None,
    cohorts: tuple[str, str] = ("Real", "Synthetic"),
) -> Figure:
    """Regional volumes of two cohorts relative to the real mean, in percent: boxes over one point a brain.

    The axis is logarithmic, because volumes vary by factors: -50% and +100% are equally far from 0. Boxes span the
    quartiles with the median; whiskers reach to 1.5 times that range.

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

    figure, axes = _chart(9, 1.1 + 0.4 * len(names))
    noise = np.random.default_rng(0)
    for k in range(len(names)):
        for offset, ratio, colour in ((-0.19, ratios[0][:, k], REAL), (0.19, ratios[1][:, k], SYNTHETIC)):
            shown = np.clip(ratio[np.isfinite(ratio)], low, high)
            if not shown.size:
                continue
            heights = k + offset + noise.uniform(-0.11, 0.11, shown.size)
            axes.scatter(shown, heights, s=5, color=colour, alpha=0.45, lw=0)
            line = {"color": colour, "lw": 1.1}
            lines: dict[str, Any] = {"boxprops": line, "whiskerprops": line}
            lines |= {"capprops": {"lw": 0}, "medianprops": {**line, "lw": 2}}
            place: dict[str, Any] = {"positions": [k + offset], "widths": 0.3}
            place |= {"orientation": "horizontal", "manage_ticks": False}
            axes.boxplot(shown, showfliers=False, **place, **lines)
    axes.axvline(1, color=GREY, lw=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator([1 + t / 100 for t in _percent_ticks(low, high)]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _percent(x)))
    axes.set_xlabel(f"Volume relative to the {cohorts[0].lower()} mean", color=INK, fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), [name.replace("-", " ") for name in names], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e8ea", lw=0.7)
    for k in range(1, len(names), 2):
        axes.axhspan(k - 0.5, k + 0.5, color="#f5f6f7", zorder=-1)
    drawn = ((cohorts[0], REAL, values[0]), (cohorts[1], SYNTHETIC, values[1]))
    handles = [Patch(color=colour, label=f"{name} (n = {len(v)})") for name, colour, v in drawn]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    if title:
        axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=8)
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
    files = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    parts = [_read_part(path) for path in files]
    starts = [min(step for step, _ in part) for part in parts]
    curves: dict[str, dict[float, float]] = defaultdict(dict)
    for k, part in enumerate(parts):
        end = min(starts[k + 1 :], default=math.inf)
        for step, row in part:
            if step < end:
                for name, value in row.items():
                    curves[name][step] = value
    ordered = {name: np.array(sorted(curve.items())).T for name, curve in curves.items()}
    return {name: (curve[0], curve[1]) for name, curve in ordered.items()}, starts[1:]


def _read_part(path: Path) -> list[tuple[float, dict[str, float]]]:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            numbers = {name: _number(text) for name, text in row.items() if name}
            finite = {name: x for name, x in numbers.items() if math.isfinite(x)}
            if "step" in finite:
                step = finite.pop("step")
                finite.pop("epoch", None)
                rows.append((step, finite))
    if not rows:
        raise UserError(f"{path}: expected the metrics.csv of a Lightning run, found no rows with a step")
    return rows


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def training_curves(csv_path: Path | Sequence[Path], title: str | None = None) -> Figure:
    """The metrics of a run over its steps, training and validation of one metric in one panel.

    Arguments:
        csv_path: Lightning's `metrics.csv`, or the parts of a resumed run in order; a dashed line marks each resume.

    Raises:
        UserError: if a file is missing or holds no metric.
    """
    curves, resumed = read_metrics(csv_path)
    panels: dict[str, dict[str, Curve]] = defaultdict(dict)
    for name, curve in sorted(curves.items()):
        metric, stage = _split(name)
        panels[metric][stage] = max(curve, panels[metric].get(stage, curve), key=lambda c: len(c[0]))
    if not panels:
        raise UserError(f"{csv_path}: it holds no metrics")
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(max(4.0 * columns, 5), 2.6 * rows + (0.4 if title else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    order = sorted(panels, key=lambda metric: (metric.startswith("lr"), metric != "loss", metric))
    for k, metric in enumerate(order):
        stages = panels[metric]
        axes = figure.add_subplot(rows, columns, k + 1)
        _plain(axes)
        axes.set_title(metric, loc="left", fontsize=9.5, color=INK)
        for stage, (steps, values) in stages.items():
            _curve(axes, steps, values, stage)
        for step in resumed:
            axes.axvline(step, color=GREY, lw=0.8, ls="--")
        everything = np.concatenate([values for _, values in stages.values()])
        if everything.min() > 0 and everything.max() > 50 * everything.min():
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(color="#e6e8ea", lw=0.7)
        if len(stages) > 1:
            axes.legend(frameon=False, fontsize=8)
        if k + columns >= len(panels):
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
    if len(values) <= 100:
        marker = "o" if len(values) <= 30 else None
        axes.plot(steps, values, color=colour, lw=1.4, marker=marker, ms=3, label=stage or None)
        return
    axes.plot(steps, values, color=colour, lw=0.6, alpha=0.3)
    reach = len(values) // 100
    padded = np.pad(values, reach, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)
    axes.plot(steps, smooth, color=colour, lw=1.5, label=stage or None)


def _plain(axes: Axes) -> None:
    axes.set_facecolor("white")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=8, width=0.6)


def _chart(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _plain(axes)
    return figure, axes
