"""The page of `cortexgen benchmark`: the tables of all models, and a row of brains of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from cortexgen import figures
from cortexgen.atlas.intensity import normalize
from cortexgen.benchmark.plan import Plan, Row
from cortexgen.data.cohort import Scan, find_scans
from cortexgen.errors import UserError
from cortexgen.evaluation.table import Table
from cortexgen.figures.planes import PLANES
from cortexgen.io import Grid, read_volume
from cortexgen.pages.report import Report
from cortexgen.pages.viewer import MOST, Viewer
from cortexgen.spatial import resample

SHOWN = 6  # brains of each model


def write_report(
    path: Path,
    plan: Plan,
    records: Mapping[str, Row],
    tables: Mapping[str, Table],
    results: Mapping[str, Path],
    note: str = "",
) -> None:
    """One self-contained HTML file.

    Arguments:
        records: of the models, by name.
        results: folder of each set's brains, or registrations, by name.
        note: what couldn't be measured.
    """
    what = "Registrations" if plan.samples is None else "Generators"
    page = Report(
        f"{what} compared",
        f"Trained on {plan.sides.trained} people, {plan.budget} each; measured against {plan.sides.measured} others.",
    )
    for name, table in tables.items():
        page.section(table.caption or name)
        page.results(table)
    if plan.samples is not None:
        _brains(page, plan, {records[n]["title"] if n in records else n: p for n, p in results.items()})
    failed = [{"Model": r["title"], "Why": r["reason"]} for r in records.values() if r["status"] == "failed"]
    if failed:
        page.section("Failed", "The others are not affected.")
        page.table(failed)
    notes = [{"Where": "evaluation", "What": note}] if note else []
    for record in records.values():
        calls = [*record["training"], record.get("use") or {}]
        notes += [{"Where": record["title"], "What": call["note"]} for call in calls if call.get("note")]
    if notes:
        page.section("Left out", "The others are not affected; the logs beside this page have every line.")
        page.table(notes)
    sources = [{"Model": r["title"], "Paper": r["source"]} for r in records.values() if r["source"]]
    if sources:
        page.section("Papers")
        page.table(sources)
    page.write(path)


def _brains(page: Report, plan: Plan, sets: Mapping[str, Path]) -> None:
    """The first brains of each set below real ones, plane by plane."""
    page.section("Brains", "The first of each model, not chosen; held-out people on top.")
    real = plan.sides.held_out[0]
    grid = read_volume(find_scans(real)[0].image)[1]
    rows: dict[str, list[Tensor]] = {}
    for title, folder in {"Held-out people": real, **sets}.items():
        try:
            rows[title] = shown_images(find_scans(folder), grid)
        except UserError as error:
            page.text(f"{title}: no picture, {error}")
    viewer, each = Viewer(), max(MOST // max(len(rows), 1), 1)
    for title, images in [*rows.items()][:MOST]:
        for k, image in enumerate(images[:each]):
            viewer.add(title, f"{title}, {k + 1}", image[None], grid)
    page.viewer(viewer, "The first brains of each model, coronal slices.")
    for plane in PLANES:
        page.figure(figures.cohort(rows, grid, plane), f"{plane.capitalize()} slices, a row a model.", dpi=110)


def shown_images(scans: Sequence[Scan], grid: Grid) -> list[Tensor]:
    """The first images on a grid, `[D, H, W]` each."""
    out = []
    for scan in scans[:SHOWN]:
        scan.check()
        image, found = read_volume(scan.image)
        image = normalize(image, scan.image)
        if not found.matches(grid):
            image = resample(image[None], found.torch_affine, grid.shape, grid.torch_affine)[0]
        out.append(image[0])
    return out
