"""The page of `cortexgen evaluate --registration`: how well registered images fit the fixed ones."""

from pathlib import Path

import torch
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.evaluation.pairs import NO_REGISTRATION
from cortexgen.evaluation.registration import MEASURES, RegistrationEvaluation
from cortexgen.evaluation.table import Column, Table
from cortexgen.figures.brains import cohort
from cortexgen.figures.charts import class_distributions
from cortexgen.figures.deformations import registration
from cortexgen.figures.planes import PLANES
from cortexgen.io.bids import Row
from cortexgen.pages.report import Report, listed
from cortexgen.pages.viewer import MOST, Viewer
from cortexgen.spatial import log_jacobian

KEYS = ("dice", "hd95", "brain_ssim", "psnr", "folded")


def write_registered_report(path: Path, evaluation: RegistrationEvaluation) -> None:
    """Write one self-contained HTML file: the tables, pictures of pairs, the classes, and what was left out."""
    best = _best(evaluation)
    n = len(evaluation.values(best, "psnr"))
    methods = listed(evaluation.registered)
    page = Report("Registration", f"{n} images of {evaluation.pairs.fixed.name}, registered by {methods}.")
    page.key_figures(_cards(evaluation, best))
    page.section("Methods")
    for table in _parts(evaluation.tables["registration"]):
        page.results(table)
    page.section("Pairs", about="registered/pairs")
    viewer = Viewer(evaluation.pairs.classes)
    for method in evaluation.registered:
        by = _by(evaluation, method)
        for rank, row in _examples(evaluation, method, by).items():
            value = f"{by.title} {row[by.name]:{by.format}}"
            _picture(page, viewer, evaluation, row, f"{method}, {rank}: {row['participant_id']}, {value}")
    page.viewer(viewer, "Fixed and warped images, coronal slices.")
    if any(_by(evaluation, method).name == "dice" for method in evaluation.registered):
        page.section("Classes", "The distribution over the images, doing nothing in grey.")
        for measure in MEASURES[:2]:
            found = {m: _by_class(evaluation, m, measure) for m in evaluation.methods}
            shown = {method: values for method, values in found.items() if len(values)}
            figure = class_distributions(evaluation.classes, shown, measure.heading, not measure.unit, NO_REGISTRATION)
            page.chart(figure, f"{measure.title} of each class: boxes span the quartiles, a point an image.")
        for name in ("registration_dice", "registration_hd95"):
            page.results(evaluation.tables[name])
    if evaluation.problems:
        page.section(f"Left out ({len(evaluation.problems)})", "The others are not affected.")
        page.table([{"Pair": name, "Reason": reason} for name, reason in evaluation.problems.items()])
    page.section("Every pair")
    columns = [c for c in MEASURES if any(row.get(c.name) is not None for row in evaluation.rows)]
    rows = [{"Image": row["participant_id"], "Method": row["method"]} for row in evaluation.rows]
    measures = [{c.title: row.get(c.name) for c in columns} for row in evaluation.rows]
    page.table([a | b for a, b in zip(rows, measures, strict=True)], formats={c.title: c.format or "" for c in columns})
    page.write(path)


def _by_class(evaluation: RegistrationEvaluation, method: str, measure: Column) -> Tensor:
    """A measure of a method's images that have labels, `[N, classes]`."""
    values = torch.stack([evaluation.values(method, f"{measure.name}_{c}") for c in evaluation.classes], dim=1)
    return values[values.isfinite().any(dim=1)]


def _by(evaluation: RegistrationEvaluation, method: str) -> Column:
    """What ranks a method's pairs: Dice, or SSIM in the brain without labels."""
    name = "dice" if evaluation.values(method, "dice").isfinite().any() else "brain_ssim"
    return next(c for c in MEASURES if c.name == name)


def _best(evaluation: RegistrationEvaluation) -> str:
    """The method with the best mean of what ranks its pairs, those with labels first."""
    ranks = {method: _by(evaluation, method).name for method in evaluation.registered}
    means = {m: float(evaluation.values(m, name).nanmean().nan_to_num(-1)) for m, name in ranks.items()}
    return max(ranks, key=lambda m: (ranks[m] == "dice", means[m]))


def _examples(evaluation: RegistrationEvaluation, method: str, by: Column) -> dict[str, Row]:
    """The worst, the median and the best image of a method, none of them twice."""
    found = (row for row in evaluation.rows if row["method"] == method and row.get(by.name) is not None)
    rows = sorted(found, key=lambda row: (row[by.name], row["participant_id"]))
    if not rows:
        return {}
    places = {"best": len(rows) - 1, "worst": 0, "median": (len(rows) - 1) // 2}
    chosen = {place: rank for rank, place in reversed(places.items())} if len(rows) > 2 else {0: "worst"}
    return {chosen[place]: rows[place] for place in sorted(chosen)}


def _picture(page: Report, viewer: Viewer, evaluation: RegistrationEvaluation, row: Row, caption: str) -> None:
    pairs, method = evaluation.pairs, row["method"]
    scan = next(scan for scan in pairs.scans if scan.name == row["participant_id"])
    try:
        fixed = pairs.read_fixed(scan)
        found = pairs.read(method, scan, fixed)
        images = [pairs.unregistered(scan, fixed).image, fixed.image, found.image]
    except UserError as error:
        page.text(f"{caption}: no picture, {error}")
        return
    field = pairs.displacement(method, scan, fixed.grid) if row.get("folded") is not None else None
    new = ("Fixed", scan.name) not in {(brain.group, brain.name) for brain in viewer.brains}
    if len(viewer.brains) + new < MOST:
        if new:
            viewer.add("Fixed", scan.name, fixed.image, fixed.grid, fixed.labels)
        own = None if field is None else (field, fixed.grid)
        viewer.add(f"Warped, {method}", scan.name, found.image, fixed.grid, found.labels, own, caption)
    if field is None:
        figure = cohort({caption: images}, fixed.grid, list(PLANES), {caption: ["moving", "fixed", "warped"]})
    else:
        moving, target, warped = images
        growth = -log_jacobian(field[None])[0, 0]
        growth -= growth[target[0] > BRAIN_FOREGROUND].median()
        figure = registration(moving, target, warped, field, growth, fixed.grid)
    page.figure(figure, f"{caption}.", dpi=100)


def _cards(evaluation: RegistrationEvaluation, best: str) -> list[tuple[str, str, str]]:
    """The best method's figures beside those of doing nothing."""
    cards = []
    for c in MEASURES:
        value = evaluation.values(best, c.name).nanmean()
        if c.name in KEYS and not value.isnan():
            before = evaluation.values(NO_REGISTRATION, c.name).nanmean()
            note = best if before.isnan() else f"{best}; {before:{c.format}} before registration"
            cards.append((c.title, f"{value:{c.format}} {c.unit}".strip(), note))
    return cards


def _parts(table: Table) -> list[Table]:
    """A wide table of methods as two, the second one of what was measured in the brain and of the fields."""
    first, *others = table.columns
    inside = [c for c in others if c.name.startswith("brain_") or c.name == "folded"]
    outside = [c for c in others if c not in inside]
    rows = [row for row in table.rows if any(row[c.name] is not None for c in inside)]
    return [
        Table(table.rows, [first, *outside], "Whole image."),
        Table(rows, [first, *inside], "Inside the brain, and the fields.", table.notes),
    ]
