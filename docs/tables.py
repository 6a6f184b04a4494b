"""Writes the tables of docs/benchmark.md from what `cortexgen benchmark` left, with the records, and the picture.

    cortexgen benchmark COHORT OUT ...
    python docs/tables.py generators OUT --real ds002748
    python docs/tables.py registrations OUT

What stands between `<!-- generators -->` and `<!-- /generators -->` is replaced; the words around are kept. Real brains
in committed pictures are of OpenNeuro ds002748, which is CC0.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from cortexgen import figures
from cortexgen.data.cohort import find_scans
from cortexgen.figures import to_png
from cortexgen.io import read_volume
from cortexgen.pages.benchmark import shown_images

PAGE = Path(__file__).with_name("benchmark.md")
TABLES = {
    "generators": ("images", "anatomy", "conditions", "copies", "labels", "costs"),
    "registrations": ("registration", "costs"),
}
RECORDS = {"generators": PAGE.with_suffix(""), "registrations": PAGE.with_suffix("") / "registration"}


def fill(kind: str, out: Path) -> None:
    """Replace the tables of a kind in the page.

    Raises:
        ValueError: if the page has no place for them.
    """
    found = [out / "tables" / f"{name}.md" for name in TABLES[kind]]
    text = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in found if path.is_file())
    begin, end = f"<!-- {kind} -->", f"<!-- /{kind} -->"
    page = PAGE.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE.name}: expected {begin} and {end} once each")
    before, rest = page.split(begin)
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def records(kind: str, out: Path) -> list[str]:
    """Copy the records of the models that are done; their names, in the order of the tables."""
    folder = RECORDS[kind]
    for path in folder.glob("*.json"):
        path.unlink()
    titles = {}
    for path in sorted(out.glob("models/*/record.json")):
        record = json.loads(path.read_text(encoding="utf-8").replace(str(out), "out"))
        if record.get("status") == "ok":
            (folder / f"{path.parent.name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            titles[record["title"]] = path.parent.name
    rows = json.loads((out / "tables" / "costs.json").read_text(encoding="utf-8"))["rows"]
    return [titles[row["method"]] for row in rows if row["method"] in titles]


def picture(out: Path, real: Path, names: list[str]) -> None:
    """Held-out people above each model's first brains."""
    held_out = [p for p in find_scans(real) if re.search(r"[05]$", p.subject)]
    grid = read_volume(held_out[0].image)[1]
    rows = {f"Held-out people ({real.name})": shown_images(held_out, grid)}
    for name in names:
        record = json.loads((out / "models" / name / "record.json").read_text(encoding="utf-8"))
        rows[record["title"]] = shown_images(find_scans(out / "models" / name / "brains"), grid)
    PAGE.with_suffix("").joinpath("brains.png").write_bytes(to_png(figures.cohort(rows, grid, "axial"), 60))


def main() -> None:
    """Tables, records, and the picture where real brains are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=TABLES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path, help="the cohort of the picture's real brains")
    given = parser.parse_args()
    fill(given.kind, given.out)
    names = records(given.kind, given.out)
    if given.real is not None:
        picture(given.out, given.real, names)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))
