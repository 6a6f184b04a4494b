"""Rows of registrations, a method and a subject each, as tables of methods."""

import math
import statistics
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from cortexgen.io.bids import Row
from cortexgen.metrics.resampling import bootstrap_interval

SHOWN = {  # name in the tables, digits
    "dice": ("Dice", 4),
    "dice_Cerebral-Cortex": ("cortex", 4),
    "dice_Cerebral-White-Matter": ("white matter", 4),
    "dice_Lateral-Ventricle": ("lateral ventricles", 4),
    "dice_Hippocampus": ("hippocampus", 4),
    "dice_Cerebellum-Cortex": ("cerebellar cortex", 4),
    "hd95_cortex": ("HD95 of cortex, mm", 2),
    "ssim": ("SSIM", 4),
    "psnr": ("PSNR", 2),
    "folded_cubes": ("folded", 1),
    "sd_log_jacobian": ("SD log J", 3),
    "seconds": ("processor s", 2),
    "times": ("times {}'s", 2),
    "peak_mib": ("peak MiB", 0),
}
COMPARED = {"dice": 1, "dice_Cerebral-Cortex": 1, "hd95_cortex": -1, "ssim": 1, "psnr": 1}  # which way is better
FEWEST = 5  # subjects that an interval is drawn from
BANDS = {"under 40": (0, 40), "40 to 60": (40, 60), "60 and over": (60, math.inf)}


def mean(values: Iterable[Any]) -> float | None:
    """The mean of what is known."""
    known = [float(v) for v in values if v is not None]
    return statistics.fmean(known) if known else None


def interval(name: str, *samples: Sequence[float]) -> Row:
    """The mean, or that of the first less that of the second; its 95 % bootstrap interval if there are enough."""

    def difference(*drawn: Tensor) -> float:
        return float(drawn[0].mean() - sum(other.mean() for other in drawn[1:]))

    tensors = [torch.tensor(sample, dtype=torch.float64) for sample in samples]
    if min(map(len, tensors)) < FEWEST:
        return {name: difference(*tensors), "low": None, "high": None}
    return dict(zip((name, "low", "high"), bootstrap_interval(difference, *tensors), strict=True))


def groups(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """Rows by cohort and method, and in these by subject."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["cohort"], row["method"]), {})[row["participant_id"]] = row
    return found


def summary(rows: Sequence[Row], references: Sequence[str]) -> list[Row]:
    """Means of the scores and seconds, the largest peak memory, and how many times the first reference's seconds."""
    out, found = [], groups(rows)
    for (cohort, method), members in found.items():
        of = members.values()
        names = [name for name in next(iter(of)) if name.startswith("dice_") or name in SHOWN]
        row: Row = {"cohort": cohort, "method": method, "subjects": len(of)}
        row |= {name: mean(row[name] for row in of) for name in names}
        row["peak_mib"] = max((row["peak_mib"] for row in of if row["peak_mib"]), default=None)
        other = mean(row["seconds"] for row in found.get((cohort, references[0]), {}).values())
        row["times"] = row["seconds"] / other if row["seconds"] and other else None
        out.append(row)
    return out


def differences(rows: Sequence[Row], references: Sequence[str]) -> list[Row]:
    """Each method's scores less a reference's of the same subjects, their intervals, and how often it is better."""
    out, found = [], groups(rows)
    for ((cohort, method), members), reference in product(found.items(), references):
        other = found.get((cohort, reference), {})
        pairs = [(row, other[name]) for name, row in members.items() if name in other and method != reference]
        for name, sign in COMPARED.items():
            apart = [a[name] - b[name] for a, b in pairs if None not in (a.get(name), b.get(name))]
            if apart:
                row = {"cohort": cohort, "method": method, "less": reference, "measure": name, "subjects": len(apart)}
                out.append(row | interval("difference", apart) | {"wins": sum(sign * d > 0 for d in apart)})
    return out


def ages(rows: Sequence[Row]) -> list[Row]:
    """Mean Dice in bands of age, and what those of 60 and over have less those under 40, with its interval."""
    out = []
    for (cohort, method), members in groups(rows).items():
        bands = {
            band: [row["dice"] for row in members.values() if row["age"] is not None and low <= row["age"] < high]
            for band, (low, high) in BANDS.items()
        }
        row: Row = {"cohort": cohort, "method": method}
        for band, dice in bands.items():
            row |= {f"dice, {band}": mean(dice), f"subjects, {band}": len(dice)}
        young, _, old = bands.values()
        if young and old:
            row |= interval("old less young", old, young)
        out.append(row)
    return out


def markdown(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows) + "\n"


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A number as a table shows it."""
    return "" if value is None else f"{value:{sign}.{digits}f}"


def between(row: Row, name: str, digits: int = 4) -> str:
    """A difference and its interval as a table shows them."""
    value, low, high = (number(row.get(key), digits, "+") for key in (name, "low", "high"))
    return f"{value} [{low}, {high}]" if low else value


def text(rows: Sequence[Row], references: Sequence[str]) -> str:
    """All of it, as tables in Markdown."""
    means = summary(rows, references)
    shown = {name: how for name, how in SHOWN.items() if any(row.get(name) is not None for row in means)}
    titles = [title.format(references[0]) for title, _ in shown.values()]
    lines = [
        [row["cohort"], row["method"], row["subjects"], *(number(row.get(k), n) for k, (_, n) in shown.items())]
        for row in means
    ]
    out = [markdown(["cohort", "method", "n", *titles], lines)]
    lines = []
    for r in differences(rows, references):
        wins = f"{r['wins']}/{r['subjects']}"
        methods, measure = f"{r['method']} - {r['less']}", SHOWN[r["measure"]][0]
        lines.append([r["cohort"], methods, measure, between(r, "difference"), wins])
    if lines:
        out.append(markdown(["cohort", "methods", "measure", "difference [95 %]", "better in"], lines))
    lines = []
    for r in ages(rows):
        bands = (f"{number(r[f'dice, {band}'], 4)} ({r[f'subjects, {band}']})" for band in BANDS)
        lines.append([r["cohort"], r["method"], *bands, between(r, "old less young")])
    out.append(markdown(["cohort", "method", *(f"Dice {band} (n)" for band in BANDS), "old less young [95 %]"], lines))
    return "\n".join(out)
