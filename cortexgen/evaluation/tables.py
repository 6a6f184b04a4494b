"""The tables of an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cortexgen.evaluation import (
    ageing,
    anatomy,
    comparison,
    conditions,
    copies,
    discrimination,
    effects,
    patch_copies,
    published,
    texture,
    usefulness,
)
from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.results import SetResult
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.table import Column, Table, measured

REAL = "real against real"
FLOOR = (
    f"'{REAL}' is what real brains get against other real brains: half of them against the other half, mean and range "
    "over random halves. Most distances depend on the number of brains, so compare a set at the same n with it. "
    "Brackets after a set's own value are 95 % bootstrap intervals over brains; they hold no bias."
)
D = (
    "d is Cohen's, of the set over the real brains: volumes with intracranial volume regressed out, the others as they "
    "are. Asymmetry: of (left - right) / (left + right). Offset: between the mean centroids of the brains. Contrast to "
    "noise and sharpness of the grey-white border, and noise: ratios to the real brains' means. log |J|: growth of the "
    "template's voxels in each brain, medians over voxels. Less than real brains get against real ones is no better: "
    "copies and repetitions do that."
)
ANATOMY, IMAGES = ("anatomy", "growth"), ("features", "sets", "image", "texture")  # what metrics of a table need


def _rows(evaluation: Evaluation, protocol: str) -> dict[str, dict[str, Row]]:
    """Comparison rows by set and name."""
    return {
        result.name: {str(row["name"]): row for row in result.rows if row["protocol"] == protocol}
        for result in evaluation.sets
    }


def wide(
    evaluation: Evaluation,
    protocol: str,
    columns: Sequence[Column],
    caption: str,
    notes: Sequence[str] = (),
    more: Mapping[str, Row] | None = None,
    published: Sequence[Row] = (),
) -> Table:
    """A row for real brains against real ones, and two a set: at the same n, and with all of its brains.

    Arguments:
        columns: of comparisons, by name.
        notes: below the table, before those of all tables.
        more: further columns' values of each set.
        published: further rows.
    """
    names = [c.name for c in columns]
    found = {method: [rows[n] for n in names if n in rows] for method, rows in _rows(evaluation, protocol).items()}
    every = [row for rows in found.values() for row in rows]
    sizes = dict.fromkeys(row["n_floor"] for row in every if row["n_floor"] not in (None, row["n_real"]))
    table: list[Row] = []
    for n in sizes:  # at n_real a floor is at no number in particular
        floors: Row = {str(row["name"]): row["floor"] for row in every if row["n_floor"] in (n, row["n_real"])}
        table.append({"method": REAL, "n": n, **floors})
    for method, rows in found.items():
        for n in sizes:
            if any(row["n_floor"] == n for row in rows):
                cells: Row = {str(r["name"]): r["at_floor"] for r in rows if r["n_floor"] in (n, r["n_real"])}
                table.append({"method": f"{method}, n of the floor", "n": n, **cells})
        whole: Row = {"method": method, "n": rows[0]["n"] if rows else None}
        table.append(whole | {str(row["name"]): row["value"] for row in rows} | (more or {}).get(method, {}))
    table += published
    shown = [Column("method", "Set"), Column("n", "N")]
    shown += [c for c in columns if any(row.get(c.name) is not None for row in table)]
    return Table(table, shown, caption, [*notes, FLOOR], lambda row: measured(row) and row["method"] in found)


def _columns(evaluation: Evaluation, protocol: str, needs: Sequence[str]) -> list[Column]:
    """Columns for what was measured by metrics that need this and have a heading."""
    found: dict[str, Row] = {}
    for rows in _rows(evaluation, protocol).values():
        found |= {name: row for name, row in rows.items() if row["needs"] in needs and row["heading"] is not None}
    return [
        Column(name, str(row["heading"] or row["title"]), better=row["better"], format=".3g")  # type: ignore[arg-type]
        for name, row in found.items()
    ]


def table1(evaluation: Evaluation, seconds: Mapping[str, float]) -> Table:
    """The paper's Table 1: the sets under its protocol, and its own rows.

    Arguments:
        seconds: a sample, by set.
    """
    columns = [*published.METRICS, published.UNSTATED_MMD]
    names = {column.name for column in columns}
    columns += [c for c in _columns(evaluation, "paper", IMAGES) if c.name not in names]
    notes = [f"Features: {network.label}." for network in evaluation.networks if "paper" in network.protocols]
    if all(network.distance != "FID" for network in evaluation.networks):
        notes.append(
            "FID and its MMD were not measured: they need MedicalNet's weights (--medicalnet). Distances of other "
            "features are no FID, and can't be set beside published figures."
        )
    caption = "Protocol paper: as published, quirks and all"
    more: dict[str, Row] = {name: {"seconds": s} for name, s in seconds.items()}
    return wide(evaluation, "paper", columns, caption, notes, more, published.published_rows())


def build(evaluation: Evaluation, seconds: Mapping[str, float] | None = None) -> dict[str, Table]:
    """All tables of what was measured so far, by file name."""
    sets, protocols = evaluation.sets, evaluation.options.protocols
    out: dict[str, Table] = {}
    rows = _of(sets, lambda r: r.rows)
    if rows:
        out["comparison"] = Table(rows, comparison.COLUMNS, "Every comparison with the real brains", [FLOOR])
    if "standard" in protocols:
        columns = _columns(evaluation, "standard", ANATOMY)
        if columns and evaluation.labeller:
            notes = [f"Labels: {evaluation.labeller.description}.", D]
            out["anatomy"] = wide(evaluation, "standard", columns, "Anatomy", notes)
        if columns := _columns(evaluation, "standard", IMAGES):
            labels = [f"Features: {network.label}." for network in evaluation.networks]
            out["images"] = wide(evaluation, "standard", columns, "Images, protocol standard", labels)
    if "paper" in protocols and rows:
        out["table1"] = table1(evaluation, seconds or {})
    brains = _of(sets, lambda r: [row for found in r.copies for row in found.rows()])
    for name, caption, shown, found in (
        ("regions", "Regional volumes", anatomy.REGION_COLUMNS, _of(sets, lambda r: r.regions)),
        ("effects", "Effects of covariates on volumes", effects.COLUMNS, _of(sets, lambda r: r.effects)),
        *((name, *about, _of(sets, partial(_ageing, name))) for name, about in ageing.TABLES.items()),
        ("conditions", "Covariates, as asked for and as seen", conditions.COLUMNS, _of(sets, lambda r: r.conditions)),
        ("texture", "Spectra, intensities and the grey-white edge", texture.COLUMNS, _of(sets, lambda r: r.curves)),
        ("classifier", "Told apart by a network", discrimination.COLUMNS, _of(sets, lambda r: r.told_apart)),
        ("labels", "What the labels are worth", usefulness.COLUMNS, _of(sets, lambda r: r.worth)),
        (
            "labels_classes",
            "What the labels are worth, by class",
            usefulness.CLASS_COLUMNS,
            _of(sets, lambda r: r.worth_classes),
        ),
        ("copies", "Nearest training subjects", copies.COLUMNS, _of(sets, lambda r: [c.row() for c in r.copies])),
        ("patches", "Parts of training subjects", patch_copies.COLUMNS, _of(sets, _patches)),
        ("patches_brains", "The part of each brain that is most a training subject's", (), _of(sets, _patches_brains)),
        ("copies_brains", "Nearest training subject of each brain", (), brains),
    ):
        if found:
            out[name] = Table(found, shown, caption)
    return out


def _ageing(name: str, result: SetResult) -> list[Row]:
    return result.ageing.get(name, [])


def _patches(result: SetResult) -> list[Row]:
    return [found.row() for found in result.patches]


def _patches_brains(result: SetResult) -> list[Row]:
    return [row for found in result.patches for row in found.rows()]


def _of(sets: Sequence[SetResult], rows: Callable[[SetResult], list[Row]]) -> list[Row]:
    return [{"set": result.name, **row} for result in sets for row in rows(result)]
