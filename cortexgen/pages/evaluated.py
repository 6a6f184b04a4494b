"""The page of `cortexgen evaluate`: what sets of synthetic brains have in common with real ones, and what not."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch

from cortexgen.evaluation.anatomy import SMALL
from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.copies import UNITS
from cortexgen.evaluation.results import SetResult
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.table import Column, Table
from cortexgen.evaluation.texture import EDGE, POWER, groups
from cortexgen.figures.charts import volume_distributions
from cortexgen.figures.comparison import distance_histograms, distributions, effect_forest, plain
from cortexgen.figures.texture import curve, texture_curves
from cortexgen.metrics.cortex import Cortex
from cortexgen.metrics.memorization import FRACTION
from cortexgen.metrics.resampling import Interval
from cortexgen.pages import evaluated_brains as brains
from cortexgen.pages.report import Report, listed

LINES = 20  # of what went wrong
NEAREST = 10  # rows a set and kind
CARDS_FOR = 3  # sets; with more, the tables alone hold the figures
ICV = "Intracranial volume [ml]"
CORTEX = {
    "thickness": ("Cortical thickness [mm]", 1.0),
    "pial_area": ("Pial area [cm²]", 0.01),
    "folding": ("Folding index", 1.0),
    "white_folding": ("Folding index, white surface", 1.0),
}
IMAGE_TITLES = ("Grey-white contrast to noise", "Grey-white sharpness [1/mm]", "Noise")
NEAREST_COLUMNS = (
    *(Column(name, name.capitalize()) for name in ("set", "compared", "brain", "nearest", "mirrored", "distance")),
    Column("of_reference", "of the reference's median", format=".3f"),
    Column("of_second", "of the second nearest", format=".3f"),
    Column("copy", "Copy"),
)
HEADINGS = {
    "table1": ("The paper's table", ""),
    "anatomy": ("Anatomy", ""),
    "images": ("Images", ""),
    "regions": (
        "Regional volumes",
        "d is the set less the real brains, over the pooled SD: above 0, the set's region is too large.",
    ),
    "effects": ("Effects of covariates", "Estimated in the real brains and in the set, ICV held constant."),
    "conditions": (
        "Covariates, as asked for and as seen",
        "A network that learned from real people says how old each brain looks, and of which sex, beside what it was "
        "asked to be. Real brains, whose age is known, say what the network can see: its answers lean to the mean.",
    ),
    "classifier": (
        "Told apart by a network",
        "A small 3D network learns from four fifths of the brains, and is asked about the others. At .5 it can't tell "
        "them from real ones; what it says of real brains against real ones is beside it.",
    ),
    "labels": (
        "What the labels are worth",
        "A small segmenter learns from labelled brains and is judged on others, by Dice. One of real brains judges the "
        "set's labels; one of the set is judged on real brains that none has learned from, beside one of real brains.",
    ),
    "age_bands": ("Bands of age", "Not measured: an interval wider than ±0.4, or fewer than three brains of a side."),
    "age_slopes": ("Ageing", "Slope of a straight line and curvature of a parabola; volumes as they are."),
}


def write_report(path: Path, evaluation: Evaluation, tables: Mapping[str, Table], failures: Mapping[str, str]) -> None:
    """Write one self-contained HTML file.

    Arguments:
        evaluation: its stores still hold the images.
        tables: by file name, as `cortexgen.evaluation.tables.build` makes them.
        failures: sets that could not be evaluated, and why.
    """
    real, sets = evaluation.real, evaluation.sets
    names = listed([f"{result.name} (N = {len(result.store)})" for result in sets]) or "nothing"
    others = f"the N = {len(real.store)} real brains of {real.store.brains.path}"
    page = Report("Synthetic against real brains", f"{names}, compared with {others}")
    page.key_figures([card for result in sets for card in _cards(result, len(sets) > CARDS_FOR)])
    _left_out(page, evaluation, failures)
    for name, (heading, text) in HEADINGS.items():
        if name in tables:
            page.section(heading, text)
            page.results(tables[name])
    if "copies" in tables:
        _copies(page, evaluation, tables)
    if "patches" in tables:
        page.section("Parts of training subjects", about="evaluated/patches")
        page.results(tables["patches"])
    labeller = evaluation.registered
    if labeller and any(result.labelled for result in sets):
        page.section("Registration", about="evaluated/registration")
        brains.registrations(page, evaluation, labeller)
    page.section("Slices", about="evaluated/slices")
    brains.turning(page, evaluation)
    brains.slices(page, evaluation)
    _texture(page, sets)
    _volumes(page, real, sets)
    if labeller and real.growth is not None and any(result.growth is not None for result in sets):
        page.section("Growth on the template", about="evaluated/growth")
        brains.growth_maps(page, evaluation, labeller)
    page.section("How to read this page", about="evaluated/reading", small=SMALL, fraction=FRACTION)
    page.table(_facts(evaluation))
    if "comparison" in tables:
        page.section("Every comparison")
        page.results(tables["comparison"])
    page.write(path)


def _cards(result: SetResult, brief: bool) -> list[tuple[str, str, str]]:
    """Key figures of a set, with floors; the first one that was measured alone if `brief`."""
    rows: dict[str, Row] = {}
    for row in result.rows:
        if row["value"] is not None:
            rows.setdefault(str(row["name"]), row)
    cards = []
    for row in rows.values():
        if not row["card"] or not isinstance(value := row["value"], Interval):
            continue
        floor, note = row["floor"], f"n = {row['n']}" + ", protocol paper" * (row["protocol"] == "paper")
        if isinstance(floor, Interval) and row["alone"]:
            note += f"; real brains {floor.value:.3f}"
        elif isinstance(floor, Interval):
            note += f"; at n = {row['n_floor']}: {row['at_floor']:.2f}, real against real {floor.value:.2f}"
            note += f" [{floor.low:.2f}, {floor.high:.2f}]"
        cards.append((f"{result.name}: {row['card']}", f"{value.value:{'.3f' if row['alone'] else '.2f'}}", note))
    flagged = {c.samples[i] for c in result.copies for i in torch.nonzero(c.result.copies).flatten().tolist()}
    if result.copies:
        nearest = [f"{c.compared} {c.row()['smallest']:.2f}" for c in result.copies]
        note = f"of {len(result.store)}; smallest distance / reference: {', '.join(nearest)}"
        cards.append((f"{result.name}: copies found", str(len(flagged)), note))
    if brief:
        return cards[:1]
    problems, scans = result.store.brains.problems, result.store.brains.scans
    return [*cards, (f"{result.name}: brains left out", str(len(problems)), f"of {len(scans)}, in part or at all")]


def _left_out(page: Report, evaluation: Evaluation, failures: Mapping[str, str]) -> None:
    found = [("set", name, why) for name, why in failures.items()]
    found += [("brain", name, why) for name, why in evaluation.problems.items()]
    found += [("note", "", note) for note in evaluation.notes]
    if not found:
        page.section("What could not be used", "Every brain was read, and everything was measured.")
        return
    page.section("What could not be used, and what was done to images")
    page.table([{"Kind": kind, "What": what, "Why": why.partition("\n")[0]} for kind, what, why in found[:LINES]])
    if len(found) > LINES:
        page.text(f"And {len(found) - LINES} more, all of them in evaluation.json.")


def _copies(page: Report, evaluation: Evaluation, tables: Mapping[str, Table]) -> None:
    page.section("Nearest training subjects", about="evaluated/copies")
    page.results(tables["copies"])
    found = [(result, c) for result in evaluation.sets for c in result.copies]
    histograms = []
    for result, c in found:
        distances = c.result.generated.distance, c.result.held_out.distance, FRACTION * c.result.median_held_out
        histograms.append((f"{result.name}, {c.compared}", UNITS[c.compared], *distances))
    references = listed(list(dict.fromkeys(c.reference for _, c in found)))
    caption = (
        f"Distance to the nearest training subject; reference: {references}. Left of the dashed line a sample may be "
        "a copy; a set that lies left of the reference varies too little or copies."
    )
    page.chart(distance_histograms(histograms), caption)
    for result, c in found:
        if c.compared == "images":
            brains.nearest(page, evaluation, result, c)
    if "copies_brains" in tables:
        groups = groupby(tables["copies_brains"].rows, itemgetter("set", "compared"))
        rows = [row for _, group in groups for row in islice(group, NEAREST)]
        page.results(Table(rows, NEAREST_COLUMNS, f"The {NEAREST} samples of each set nearest to a training subject"))


def _volumes(page: Report, real: SetResult, sets: Sequence[SetResult]) -> None:
    ours = real.anatomy
    theirs = {result.name: result.anatomy for result in sets if result.anatomy is not None}
    if ours is None or not theirs:
        return
    page.section("Distributions of regional volumes")
    effects: dict[str, list[Interval | None]] = {}
    for result in sets:
        if result.regions:
            values = {str(row["region"]): row["d"] for row in result.regions}
            found = [values.get(region) for region in ours.regions]
            effects[result.name] = [e if isinstance(e, Interval) and np.isfinite(e.value) else None for e in found]
    if effects:
        figure = effect_forest(ours.regions, effects, SMALL, "d, ICV-adjusted (set − real)")
        caption = f"Effect sizes of regional volumes with 95 % intervals; the band is |d| < {SMALL}."
        page.chart(figure, caption + " Largest mean |d| on top; arrows: the interval goes on.")
    for name, anatomy in theirs.items():
        figure = volume_distributions(ours.regions, ours.volumes, anatomy.volumes, plain(name), ("Real", plain(name)))
        page.chart(figure, f"{name}: regional volumes as measured, not adjusted for head size.")
    measures = {name: _measures(anatomy) for name, anatomy in {"real": ours, **theirs}.items()}
    kept = [m for m in measures["real"] if all(np.isfinite(found[m]).any() for found in measures.values())]
    groups = {name: np.stack([found[m] for m in kept], axis=1) for name, found in measures.items()}
    cortex = any(title in kept for title, _ in CORTEX.values())
    page.section("Cortex and whole brain" if cortex else "Whole brain", about="evaluated/cortex" * cortex)
    page.chart(distributions(groups, kept), "A point a brain; boxes span the quartiles, with the median.")


TEXTURE = {
    POWER: "Power by frequency",
    "WM": "Intensities of white matter",
    "Cortical-GM": "Intensities of the cortex",
    "Ventricles": "Intensities of the ventricles",
    EDGE: "Across the grey-white boundary",
}


def _texture(page: Report, sets: Sequence[SetResult]) -> None:
    """Curves of how images look."""
    found: dict[str, dict[str, list[Row]]] = {}
    for result in sets:
        for name, rows in groups(result.curves).items():
            found.setdefault(name, {})[result.name] = rows
    if not found:
        return
    page.section("How images look", about="evaluated/texture")
    curves = [
        curve(TEXTURE.get(name, name), str(next(iter(rows.values()))[0]["unit"]), rows, name == POWER)
        for name, rows in found.items()
    ]
    page.chart(texture_curves(curves), "Means of the sets; the band holds 95 % of the real brains.")


def _measures(anatomy: Anatomy) -> dict[str, np.ndarray]:
    """Measures of whole brains by title, `[N]` each."""
    columns = anatomy.cortex.double().numpy()
    found = {title: scale * columns[:, Cortex._fields.index(name)] for name, (title, scale) in CORTEX.items()}
    images = dict(zip(IMAGE_TITLES, anatomy.image.double().numpy().T, strict=True))
    return {ICV: anatomy.icv.double().numpy()} | found | images


def _facts(evaluation: Evaluation) -> list[dict[str, str]]:
    real, options = evaluation.real, evaluation.options

    def source(result: SetResult) -> str:
        return f"{result.store.brains.path}, N = {len(result.store)}"

    facts = [("cortexgen", version("cortexgen")), ("Real brains", source(real))]
    if evaluation.train is not None:
        facts.append(("Training subjects", source(evaluation.train)))
    facts += [(f"Set {result.name}", source(result)) for result in evaluation.sets]
    labels = evaluation.labeller.description if evaluation.labeller else "none, no anatomy was measured"
    facts += [("Grid", str(real.store.grid)), ("Labels", labels)]
    facts += [(f"Features for {network.distance}", network.label) for network in evaluation.networks]
    values = {**vars(options), "protocols": listed(options.protocols), "held_out": ", ".join(sorted(options.held_out))}
    facts += [(f"Option {name}", str(value) or "none") for name, value in values.items()]
    return [{"": name, "Value": value} for name, value in facts]
