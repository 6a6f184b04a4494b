"""Quality control of a preprocessed cohort: one page to look through, with brains that turn."""

import io
import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from cortexgen.atlas.labels import read_label_table
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.figures.scan_sheet import sheet_path
from cortexgen.figures.strips import strip_charts
from cortexgen.io import read_volume
from cortexgen.io.bids import Row
from cortexgen.pages.report import Report
from cortexgen.pages.viewer import MOST, Viewer
from cortexgen.preprocess.outliers import JUDGED_FROM, MEASURES, counts, fence

THUMBNAIL, QUALITY = {1: 1400, 2: 800}, 70  # pixels wide, by columns of a gallery; of JPEG
ROOM = 5_000_000  # bytes of thumbnails in a page, a third more as base64; brains and their program take 8 MB


def cohort_overview(out: Path, rows: Sequence[Row], steps: Sequence[Mapping[str, Any]]) -> None:
    """Write `preprocess.html` into the output folder: what failed, what is flagged, then everyone; atomically.

    The page stands alone. It holds a small picture of each scan's sheet (the PNG that `sheet_path` names, if it is
    there), the flagged ones first, up to about 7 MB; beyond that, as from each picture, links lead to the PNGs. The
    first brains that were written turn and scroll in it.

    Arguments:
        out: the output folder.
        rows: of preprocess.tsv: participant_id, status (ok, flagged or failed), reason, flags, outlier, and `MEASURES`.
        steps: what was run, as `Pipeline.describe` returns it.
    """
    failed = [row for row in rows if row["status"] == "failed"]
    done = [row for row in rows if row["status"] != "failed"]
    reasons = ((row, [str(row[key]) for key in ("flags", "outlier") if row.get(key)]) for row in done)
    flagged = {str(row["participant_id"]): "; ".join(why) for row, why in reasons if row["status"] == "flagged"}
    page = _Page("Preprocessing", f"{_count(len(rows), 'scan')} through {_count(len(steps), 'step')}", Path(out))
    page.key_figures(_key_figures(rows, flagged))
    if failed:
        page.section(f"Failed ({len(failed)})", "Nothing was written of these scans.")
        page.table([{"Scan": row["participant_id"], "Reason": row.get("reason")} for row in failed])
    if flagged:
        about = "Look at these before you use them: a step found something, or a measure is far from the cohort's."
        page.section(f"Flagged ({len(flagged)})", about)
        page.gallery({name: f"{name}: {reason}" for name, reason in flagged.items()}, columns=1)
    values = {k: [(str(row["participant_id"]), float(row[k])) for row in done if counts(row, k)] for k in MEASURES}
    shown = [key for key, found in values.items() if found]
    if shown:
        page.section("Measures")
        chart = strip_charts([(MEASURES[key].head, values[key], *fence(done, key)) for key in shown], flagged)
        caption = (
            "Each point is a scan; flagged ones are orange, named where there is room. Line: median. Band: what is no "
            f"outlier, within 3.5 scaled median absolute deviations (from {JUDGED_FROM} scans on)."
        )
        page.chart(chart, caption, "Strip charts of the measures")
    brains = _brains(Path(out), [*flagged, *(str(row["participant_id"]) for row in done)])
    if brains.brains:
        shown_of = f", the first {MOST}" if len(brains.brains) == MOST < len(done) else ""
        page.section("Brains", f"As they were written{shown_of}; those with a flag come first.")
        page.viewer(brains, "Coronal slices of the scans as they were written.")
    page.section(f"All scans ({len(rows)})")
    formats = {MEASURES[key].head: MEASURES[key].format for key in shown}
    heads = {"participant_id": "Scan", "status": "Status", **{key: MEASURES[key].head for key in shown}}
    page.table([{head: row.get(key) for key, head in heads.items()} for row in rows], formats=formats)
    others = [row for row in done if str(row["participant_id"]) not in flagged]
    if others:
        page.section("Sheets without a flag", about="preprocessed/sheets")
        page.gallery({str(row["participant_id"]): _caption(row) for row in others}, columns=2)
    page.section("Steps", "What was run, in this order.")
    page.table([{key.capitalize(): _words(value) or None for key, value in step.items()} for step in steps])
    page.write(Path(out) / "preprocess.html")


def _key_figures(rows: Sequence[Row], flagged: Mapping[str, str]) -> list[tuple[str, str, str]]:
    failed = sum(row["status"] == "failed" for row in rows)
    cards = [
        ("Done", str(len(rows) - failed - len(flagged)), "without a flag"),
        ("Flagged", str(len(flagged)), "done, to be looked at"),
        ("Failed", str(failed), "nothing written"),
    ]
    for key in ("brain_volume_ml", "overlap", "seconds"):
        values = [row[key] for row in rows if counts(row, key)]
        if values:
            measure = MEASURES[key]
            low, high = (f"{end:{measure.format}}" for end in (min(values), max(values)))
            cards.append((measure.label, measure.text(float(np.median(values))), f"median; {low} to {high}"))
    return cards


def _brains(out: Path, names: Iterable[str]) -> Viewer:
    """The first `MOST` of some scans that can be read, with labels where they have some."""
    try:
        scans = {scan.name: scan for scan in read_cohort(out, warn=False) if not scan.problem}
    except UserError:  # nothing was written
        scans = {}
    viewer = Viewer()
    with suppress(UserError, OSError):
        viewer.classes = read_label_table(out / "dseg.tsv")
    for name in dict.fromkeys(names):
        if name in scans and len(viewer.brains) < MOST:
            with suppress(UserError):
                image, grid = read_volume(scans[name].image)
                path = scans[name].labels
                labels = read_volume(path, labels=True)[0] if path else None
                viewer.add("Preprocessed", name, image, grid, labels)
    return viewer


def _caption(row: Row) -> str:
    keys = [key for key in ("brain_volume_ml", "overlap", "correlation") if counts(row, key)]
    numbers = [f"{MEASURES[key].label.split()[0].lower()} {MEASURES[key].text(row[key])}" for key in keys]
    return f"{row['participant_id']}: {', '.join(numbers)}" if numbers else str(row["participant_id"])


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _words(value: Any) -> str:
    """Options as a reader would write them."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_words(v)}" for key, v in value.items())
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_words, value))}]"
    return str(value)


class _Page(Report):
    """A report that shows small pictures of sheets."""

    def __init__(self, title: str, subtitle: str, folder: Path) -> None:
        super().__init__(title, subtitle)
        self.folder, self.room = folder, ROOM

    def gallery(self, captions: Mapping[str, str], columns: int) -> None:
        """The sheets of scans beside each other, and links to them once the page has no room."""
        pictures, others = [], []
        for name, caption in captions.items():
            entry = {"name": name, "caption": caption, "link": None}
            with suppress(UserError):  # its sheet would lie elsewhere
                path = sheet_path(self.folder, name)
                if path.is_file():
                    entry["link"] = quote(os.path.relpath(path, self.folder).replace(os.sep, "/"))
            if entry["link"] and self.room > 0:
                picture = _thumbnail(path, THUMBNAIL[columns])
                self.room -= len(picture)
                pictures.append(entry | {"jpeg": b64encode(picture).decode()})
            else:
                others.append(entry)
        self.add("gallery", pictures=pictures, others=others, columns=columns)


def _thumbnail(path: Path, width: int) -> bytes:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.save(content, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return content.getvalue()
