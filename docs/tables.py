"""Writes the tables of docs/benchmark.md and docs/measured.md, so that no figure of theirs is typed.

    cortexgen benchmark COHORT OUT ...
    python docs/tables.py generators OUT --real ds002748
    python docs/tables.py registrations OUT
    python docs/tables.py registrations OUT --cohort ds002748
    python docs/tables.py cards

The first two put what a benchmark measured into docs/benchmark.md, with its records, and the picture. The third puts
one cohort's registrations into docs/measured.md, the last what the cards of the package's weights say. What stands
between `<!-- generators -->` and `<!-- /generators -->` is replaced; the words around are kept. Real brains in
committed pictures are of OpenNeuro ds002748, which is CC0.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from cortexgen import figures
from cortexgen.data.cohort import find_scans
from cortexgen.figures import to_png
from cortexgen.io import read_volume
from cortexgen.pages.benchmark import shown_images
from cortexgen.weights.catalogue import card, shipped

BENCHMARK, MEASURED = (Path(__file__).with_name(name) for name in ("benchmark.md", "measured.md"))
TABLES = {
    "generators": ("images", "anatomy", "conditions", "copies", "labels", "costs"),
    "registrations": ("registration", "costs"),
}
RECORDS = {"generators": BENCHMARK.with_suffix(""), "registrations": BENCHMARK.with_suffix("") / "registration"}
FIELDS = {  # of a card's figures: what they are called in the table
    "generator": "",
    "samples": "N",
    "classes with |d| < 0.2": "classes of 17 with \\|d\\| < .2 of their volume",
    "largest |d|": "largest \\|d\\|",
    "SD ratios": "SD ratios of volumes",
    "median SD ratio of log|J|": "median SD ratio of log \\|J\\|",
    "MS-SSIM": "MS-SSIM of pairs of warped templates",
    "energy score, held out": "energy score of held-out people's fields",
    "precision": "precision",
    "coverage": "coverage",
    "expected coverage": "coverage expected",
    "folded share": "drawn again for folding",
    "copies": "copies",
}
CARDS = {
    "generate-mni152-2mm": FIELDS,
    "generate-ds002748-2mm": FIELDS,
    "appearance-mni152-2mm": {
        "cohort": "cohort",
        "set": "set",
        "n": "N",
        "contrast": "grey-white contrast",
        "noise": "noise",
        "sharpness": "sharpness",
        **{f"power {k}": f"power, band {k}" for k in range(1, 7)},
        "coverage": "coverage, random features",
        "linear accuracy": "told apart",
        "MS-SSIM": "MS-SSIM within the set",
        "MS-SSIM of real": "of as many people",
        "d thickness": "d of thickness",
        "d area": "d of area",
        "d folding": "d of folding",
    },
    "features-mni152-2mm": {
        "cohort": "cohort",
        "n": "people",
        "age error": "error of age [years]",
        "age error, ridge": "by ridge regression on volumes",
        "age error, mean age": "by the mean age",
        "age r": "correlation",
        "sex right": "sex seen right",
        "sex right, logistic": "by logistic regression",
        "volumes r²": "r² of volumes",
    },
}


def fill(page: Path, place: str, text: str) -> None:
    """Replace the tables of a place in a page.

    Raises:
        ValueError: if the page has no such place.
    """
    begin, end = f"<!-- {place} -->", f"<!-- /{place} -->"
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{page.name}: expected {begin} and {end} once each")
    before, rest = content.split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def written(kind: str, out: Path) -> str:
    """The tables of a kind that a benchmark wrote."""
    found = [out / "tables" / f"{name}.md" for name in TABLES[kind]]
    return "\n\n".join(path.read_text(encoding="utf-8").strip() for path in found if path.is_file())


def of_card(name: str) -> str:
    """What the card of weights says was measured of them, as a table."""
    rows = [{title: _cell(row[key]) for key, title in CARDS[name].items()} for row in card(shipped(name))["measured"]]
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True, stralign="right")


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value.is_integer() and abs(value) > 1 else f"{value + 0.0:.3f}"


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
    RECORDS["generators"].joinpath("brains.png").write_bytes(to_png(figures.cohort(rows, grid, "axial"), 60))


def main() -> None:
    """Tables, records, and the picture where real brains are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*TABLES, "cards"])
    parser.add_argument("out", type=Path, nargs="?", help="folder of the benchmark")
    parser.add_argument("--real", type=Path, help="the cohort of the picture's real brains")
    parser.add_argument("--cohort", help="whose registrations these are, for docs/measured.md")
    given = parser.parse_args()
    if given.kind == "cards":
        for name in CARDS:
            fill(MEASURED, name, of_card(name))
    elif given.cohort is not None:
        fill(MEASURED, f"{given.kind} {given.cohort}", written(given.kind, given.out))
    else:
        fill(BENCHMARK, given.kind, written(given.kind, given.out))
        names = records(given.kind, given.out)
        if given.real is not None:
            picture(given.out, given.real, names)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))
