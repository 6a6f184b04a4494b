"""The page of `cortexgen generate`: new brains that turn and scroll, whose they are, and their volumes."""

from collections.abc import Sequence
from pathlib import Path

import torch

from cortexgen.figures.charts import class_distributions
from cortexgen.generation.folder import KIND
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import Row, anat, derivative, read_tsv
from cortexgen.io.output import read_record, records
from cortexgen.pages.report import Report
from cortexgen.pages.viewer import MOST, Viewer

PARTICIPANT = "participant_id"
REPORT = "generated.html"
ROWS = 200  # of a table
FIELD = "_to-T1w_mode-image_xfm.nii.gz"  # ending of the file of the field that made a brain
FEWEST = 5  # brains that are drawn as a distribution


def write_report(out: Path) -> None:
    """One self-contained HTML file in a folder of generated brains, of what it holds; nothing without a brain.

    The first `MOST` brains lie in the page itself, whatever their number.
    """
    found = list(records(out, KIND).values())
    if not found:
        return
    manifest = read_record(out / "manifest.json")
    options = manifest.get("options", {})
    told = {"seed": "sample_seed", "appearance": "appearance", "sampler": "sampler"}
    words = [f"{name} {options[key]}" for name, key in told.items() if options.get(key) is not None]
    page = Report("Generated brains", ", ".join([_count(len(found)), *words]) + ".")
    rejected = sum(len(record["rejected"]) for record in found)
    page.key_figures([("Brains", str(len(found)), ""), ("Draws rejected", str(rejected), "drawn again")])
    volumes = read_tsv(out / "volumes.tsv") if (out / "volumes.tsv").is_file() else []
    names = [name for name in (volumes[0] if volumes else {}) if name != PARTICIPANT]
    viewer = _viewer(out, found[:MOST], names)
    first = "" if len(found) <= MOST else f"The first {MOST} of {len(found)}."
    page.section("Brains", first)
    page.viewer(viewer, "Coronal slices.")
    _tables(page, found, read_tsv(out / "participants.tsv"), volumes)
    if len(volumes) >= FEWEST and names:
        values = torch.tensor([[float(row[name]) for name in names] for row in volumes], dtype=torch.float64)
        page.section("Spread of volumes")
        share = {"Generated": 100 * values / values.mean(dim=0)}
        figure = class_distributions(names, share, "% of the mean of these brains", False)
        page.chart(figure, "Regional volumes: boxes span the quartiles, a point a brain.")
    page.write(out / REPORT)


def _count(n: int) -> str:
    return f"{n} brain" if n == 1 else f"{n} brains"


def _viewer(out: Path, found: Sequence[Row], names: Sequence[str]) -> Viewer:
    """The brains of records; `names` are those of all labels, by number."""
    viewer = Viewer()
    for record in found:
        name, files = record["participant_id"], record["sha256"]
        image, grid = read_volume(derivative(out, name, "T1w"))
        path = derivative(out, name, "dseg")
        labels = read_volume(path, labels=True)[0] if path.name in files else None
        fields = [read_field(anat(out, name) / file) for file in files if file.endswith(FIELD)]
        viewer.add("Generated", name, image, grid, labels, fields[0] if fields else None, _caption(record))
    numbers = sorted(viewer.numbers[1:])
    if len(numbers) == len(names):
        viewer.classes = dict(zip(numbers, names, strict=True))
    elif numbers and numbers[-1] <= len(names):
        viewer.classes = dict(enumerate(names, start=1))
    return viewer


def _caption(record: Row) -> str:
    """Whose brain it is, in words."""
    words = []
    for key, value in record["conditions"].items():
        name, millilitres = key.removesuffix("_ml").replace("_", " "), " ml" * key.endswith("_ml")
        words.append(f"{name} {value:.4g}{millilitres}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(words)


def _tables(page: Report, found: Sequence[Row], people: Sequence[Row], volumes: Sequence[Row]) -> None:
    known = {row[PARTICIPANT]: row for row in people}
    rows = []
    for record in found[:ROWS]:
        own = {key: value for key, value in known.get(record["participant_id"], {}).items() if key != PARTICIPANT}
        rows.append({"Brain": record["participant_id"], **own, **record.get("style", {})})
    rest = f" The first {ROWS}; the tables beside this page have all." if len(found) > ROWS else ""
    if any(len(row) > 1 for row in rows):
        page.section("Whose they are, and how they were scanned", "As they were drawn." + rest)
        page.table(rows, "Covariates and scanner style.")
    if volumes:
        page.section("Volumes", rest.strip())
        shown = [{("Brain" if key == PARTICIPANT else key): value for key, value in row.items()} for row in volumes]
        page.table(shown[:ROWS], "Regional volumes in millilitres.")
