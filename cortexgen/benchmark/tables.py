"""The tables of a benchmark: what was measured of each model, beside what was published, and what it cost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cortexgen.benchmark.plan import Row
from cortexgen.evaluation.published import MS_SSIM, published_rows
from cortexgen.evaluation.registration import MEASURES
from cortexgen.evaluation.table import PUBLISHED, Column, Table, measured
from cortexgen.evaluation.tables import FLOOR, REAL, D
from cortexgen.evaluation.usefulness import HELD_OUT, REAL_BRAINS
from cortexgen.metrics.resampling import Interval

MODEL, NUMBER = Column("method", "Model"), Column("n", "N")
# By the name and protocol that a comparison has in an evaluation.
IMAGES = {
    ("ms_ssim", "paper"): Column("ms_ssim", "MS-SSIM with real", better=MS_SSIM.better, format=".3f"),
    ("ms_ssim", "standard"): Column("within", "MS-SSIM within the set", format=".3f"),
    ("fid_random", "standard"): Column("distance", "Random-feature distance", better="lower", format=".3g"),
    ("coverage_random", "standard"): Column("coverage", "Coverage", better="higher", format=".2f"),
    ("told_apart_random", "standard"): Column("told_apart", "Told apart", better=0.5, format=".2f"),
    ("fid_region", "standard"): Column("region", "Region-feature distance", better="lower", format=".3g"),
    ("coverage_region", "standard"): Column("region_coverage", "Coverage, region", better="higher", format=".2f"),
    ("told_apart_region", "standard"): Column("region_told", "Told apart, region", better=0.5, format=".2f"),
    ("spectrum", "standard"): Column("spectrum", "Spectrum, |log₂ ratio|", better="lower", format=".2f"),
    ("contrast", "standard"): Column("contrast", "Contrast", better=1.0, format=".2f"),
    ("sharpness", "standard"): Column("sharpness", "Sharpness", better=1.0, format=".2f"),
    ("noise", "standard"): Column("noise", "Noise", better=1.0, format=".2f"),
}
NETWORK = Column("network", "Told apart by a network, AUC", better=0.5, format=".2f")
ANATOMY = {
    ("mean_d", "standard"): Column("mean_d", "Mean |d| of volumes, ICV-adjusted", better="lower", format=".2f"),
    ("mean_raw_d", "standard"): Column("mean_raw_d", "Mean |d| of volumes", better="lower", format=".2f"),
    ("spread", "standard"): Column("spread", "|log SD ratio| of volumes", better="lower", format=".2f"),
    ("thickness_d", "standard"): Column("thickness_d", "Thickness d", better=0.0, format=".2f"),
    ("folding_d", "standard"): Column("folding_d", "Folding d", better=0.0, format=".2f"),
    ("asymmetry", "standard"): Column("asymmetry", "Asymmetry |d|", better="lower", format=".2f"),
}
COPIES = (
    Column("copies", "Copies", better="lower"),
    Column("ratio", "Distance to a training subject / held-out people's", better=1.0, format=".2f"),
    Column("apart", "Distance within the set / real", better=1.0, format=".2f"),
)
PARTS = (
    Column("flagged", "Brains with a part like a training subject's", better="lower"),
    Column("expected", "of so many new people", format=".1f"),
)
CONDITIONS = (
    Column("age_error", "Error of age seen", "years", better="lower", format=".1f"),
    Column("age_slope", "Slope of age seen on asked", better=1.0, format=".2f"),
    Column("sex_right", "Sex seen right", better="higher", format=".2f"),
)
LABELS = (
    Column("right", "Dice of a segmenter of real people on it", better="higher", format=".3f"),
    Column("useful", "Dice of a segmenter of it on held-out people", better="higher", format=".3f"),
)
COSTS = (
    Column("budget", "Budget"),
    Column("trained", "Trained", unit="min", format=".1f"),
    Column("trained_processor", "Trained", unit="processor min", format=".1f"),
    Column("batches", "Batches"),
    Column("batch", "A batch", unit="s", format=".2f"),
    Column("training_memory", "Memory of training", unit="GiB", format=".1f"),
    Column("parameters", "Parameters", unit="M", format=".2f"),
    Column("seconds", "A sample", unit="s", better="lower", format=".1f"),
    Column("processor", "A sample", unit="processor s", better="lower", format=".1f"),
    Column("memory", "Memory of sampling", unit="GiB", better="lower", format=".1f"),
)
READ = (
    "Measured against people whom no model was trained on. MS-SSIM with real: the published measure, of each brain and "
    "a real one; within the set: of its pairs, good where that of real pairs is. Told apart: balanced accuracy of a "
    "cross-validated linear classifier on random features, or on those of a network that was trained to tell age, sex, "
    "style and volumes, region by region; by a network: area under the curve of small 3D networks. "
    "Spectrum: of six bands' mean power. Contrast, sharpness, noise: ratios to real brains' means."
)
WORTH = (
    "Small segmenters, all of the same number of steps, that learned from the people to train on or from a model's "
    "brains, by the label maps that came with them; in the first row, of people on held-out people."
)
ASKED = (
    "What a network that learned from other real people sees of the age and sex that a brain was asked to have; in the "
    "first row, of held-out people, whose age is known. Its answers lean to the mean, so that their slope is below 1."
)
PART = "A part is a cube of 24 mm, more one training subject's than any other's; five in a hundred new people have one."
COST = (
    "A training, and the drawing of all samples, are calls of the program, each a process of its own, with start-up: "
    "seconds on the clock, and of the processors (user and system), and the largest resident set. A batch's seconds "
    "hold its share of reading the cohort and of validation."
)


def generator_tables(records: Mapping[str, Row], evaluation: Path, samples: int) -> dict[str, Table]:
    """Tables by file name of what `cortexgen evaluate` found of each set, and of what models cost.

    Arguments:
        records: of the models, by the names that their sets have.
        evaluation: folder of the evaluation.
        samples: of each model.
    """
    found = {(row["set"], (row["name"], row["protocol"])): row for row in _rows(evaluation, "comparison")}
    copies = {row["set"]: row for row in _rows(evaluation, "copies") if row["compared"] == "images"}
    parts = {row["set"]: row for row in _rows(evaluation, "patches")}
    networks = {row["set"]: row for row in _rows(evaluation, "classifier")}
    floor: dict[str, Any] = {"method": REAL}
    rows = []
    for name in dict.fromkeys(name for name, _ in found):
        row: dict[str, Any] = {"method": records[name]["title"] if name in records else name}
        for place, column in {**IMAGES, **ANATOMY}.items():
            if (name, place) in found:
                row |= {
                    "n": max(found[name, place]["n"], row.get("n", 0)),
                    column.name: _interval(found[name, place], "value"),
                }
                if (real := _interval(found[name, place], "floor")) is not None:
                    floor.setdefault(column.name, real)
        if name in networks:
            row[NETWORK.name] = _interval(networks[name], "auc")
            floor.setdefault(NETWORK.name, _interval(networks[name], "auc_floor"))
        row |= {c.name: copies.get(name, {}).get(c.name) for c in COPIES}
        rows.append(row | {c.name: parts.get(name, {}).get(c.name) for c in PARTS})
    shown = {
        "images": _table([floor, *rows, *published_rows()], [*IMAGES.values(), NETWORK], "Images", [READ, FLOOR]),
        "anatomy": _table([floor, *rows], [*ANATOMY.values()], "Anatomy", [D, FLOOR]),
        "conditions": _table(_asked(records, evaluation), CONDITIONS, "Covariates, as asked for and as seen", [ASKED]),
        "copies": _table(rows, [*COPIES, *PARTS], "Nearest training subjects", [PART]),
        "labels": _table(_worth(records, evaluation), LABELS, "What the labels are worth", [WORTH]),
        "costs": cost_table(records, samples),
    }
    return {name: table for name, table in shown.items() if table is not None}


def registration_tables(records: Mapping[str, Row], evaluation: Path, images: int) -> dict[str, Table]:
    """Tables by file name of what `cortexgen evaluate --registration` found of each method, and of what it cost.

    Arguments:
        images: registered by each.
    """
    rows = []
    for row in _rows(evaluation, "registration"):
        title = records[row["method"]]["title"] if row["method"] in records else row["method"]
        measures = {c.name: _interval(row, c.name) for c in MEASURES if c.name in row}
        rows.append({"method": title, "n": row.get("n"), **measures})
    table = _table(rows, MEASURES, "Registration")
    return ({"registration": table} if table else {}) | {"costs": cost_table(records, images)}


def cost_table(records: Mapping[str, Row], uses: int) -> Table:
    """What training of each model cost, and one sample, or one image, of `uses`."""
    rows = []
    for record in records.values():
        fits, use = [fit for fit in record["training"] if fit["finished"]], record.get("use")
        row: dict[str, Any] = {"method": record["title"], "budget": record["key"]["budget"] or None}
        if fits:
            row["trained"] = sum(fit.get("wall", 0.0) for fit in fits) / 60
            row["trained_processor"] = sum(fit.get("processor", 0.0) for fit in fits) / 60
            row["batches"] = sum(fit.get("batches", 0) for fit in fits)
            whole = row["batches"] and not any(
                fit.get("resumed") for fit in fits
            )  # else earlier calls' time is not known
            row["batch"] = 60 * row["trained"] / row["batches"] if whole else None
            row["training_memory"] = max(fit.get("peak_mib", 0.0) for fit in fits) / 1024
        if record.get("parameters"):
            row["parameters"] = record["parameters"] / 1e6
        if use:
            row |= {"seconds": use["wall"] / uses, "processor": use["processor"] / uses}
            row["memory"] = use["peak_mib"] / 1024
        rows.append(row)
    return Table(rows, [MODEL, *(c for c in COSTS if any(c.name in row for row in rows))], "What it cost", [COST])


def _worth(records: Mapping[str, Row], evaluation: Path) -> list[Row]:
    """What segmenters say of each model's labels, below what they say of real people's."""
    floor: Row = {"method": REAL}
    found: dict[str, Row] = {}
    for row in _rows(evaluation, "labels"):
        name, dice, n = row["set"], _interval(row, "dice"), row["n_synthetic"]
        place = found.setdefault(name, {"method": records[name]["title"] if name in records else name})
        if (row["learned"], row["judged"]) == (REAL_BRAINS, HELD_OUT):
            if row["n_learned"] >= floor.get("n", 0):  # all of them, and not the fewer ones of --augment
                floor |= {"n": row["n_learned"], "right": dice, "useful": dice}
        elif row["learned"] == REAL_BRAINS:
            place |= {"n": row["n"], "right": dice}
        elif row["learned"] == name:
            place |= {"n": n, "useful": dice}
    return [floor, *found.values()] if found else []


def _asked(records: Mapping[str, Row], evaluation: Path) -> list[Row]:
    """What is seen of each model's covariates, below what is seen of real people's."""
    floor: Row = {"method": REAL}
    found: dict[str, Row] = {}
    for row in _rows(evaluation, "conditions"):
        name = row["set"]
        place = found.setdefault(name, {"method": records[name]["title"] if name in records else name, "n": row["n"]})
        for column in CONDITIONS:
            covariate, _, measure = column.name.partition("_")
            if covariate == row["covariate"]:
                floor |= {"n": row["n_real"], column.name: _interval(row, f"{measure}_real")}
                place[column.name] = _interval(row, measure)
    return [floor, *found.values()] if found else []


def _rows(evaluation: Path, name: str) -> list[Row]:
    path = evaluation / "tables" / f"{name}.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["rows"]) if path.is_file() else []


def _interval(row: Row, name: str) -> Interval | float | None:
    """A value of a table's row with its interval, where it has one."""
    value, low, high = (row.get(key) for key in (name, f"{name}_low", f"{name}_high"))
    return value if value is None or low is None or high is None else Interval(value, low, high)


def _table(rows: Sequence[Row], columns: Sequence[Column], caption: str, notes: Sequence[str] = ()) -> Table | None:
    """Those of the columns that a measured row has, and the rows that have one of these."""
    kept = [c for c in columns if any(row.get(c.name) is not None for row in rows if not row.get(PUBLISHED))]
    if not kept:
        return None
    competes = lambda row: measured(row) and row["method"] != REAL  # noqa: E731
    shown = [row for row in rows if any(row.get(c.name) is not None for c in kept)]
    return Table(shown, [MODEL, NUMBER, *kept], caption, notes, competes)
