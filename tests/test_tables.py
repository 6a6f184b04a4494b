"""The documentation's tables say what was measured: of benchmarks' records, and of the cards of weights."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from cortexgen.weights import card, shipped

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
specification = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
assert specification and specification.loader
tables = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tables)


def between(page: str, place: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return text.split(f"<!-- {place} -->")[1].split(f"<!-- /{place} -->")[0]


def rows_of(text: str) -> list[dict[str, str]]:
    """Rows of a Markdown table by its headings."""
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.strip().splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(head, line, strict=True)) for line in body]


@pytest.mark.parametrize("name", tables.CARDS)
def test_a_cards_figures_are_in_the_page(name):
    measured = card(shipped(name))["measured"]
    found = rows_of(between("measured.md", name))
    assert len(found) == len(measured) > 1
    for row, truth in zip(found, measured, strict=True):
        for key, title in tables.CARDS[name].items():
            if isinstance(truth[key], float):
                assert float(row[title]) == pytest.approx(truth[key], abs=5.1e-4)
            else:
                assert row[title] == truth[key]


@pytest.mark.parametrize("kind", tables.RECORDS)
def test_what_models_cost_is_what_their_records_say(kind):
    text = between("benchmark.md", kind).split("**What it cost**")[1]
    found = {row["Model"].replace("\\|", "|"): row for row in rows_of(text)}
    records = [json.loads(path.read_text(encoding="utf-8")) for path in tables.RECORDS[kind].glob("*.json")]
    assert len(records) >= 8 and {record["title"] for record in records} == set(found)
    for record in records:
        row = found[record["title"]]
        if record["parameters"]:
            assert float(row["Parameters \\[M\\]"]) == pytest.approx(record["parameters"] / 1e6, abs=0.0051)
        else:
            assert row["Parameters \\[M\\]"] == "n/a"


def test_a_page_without_the_place_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- here -->\nold\n<!-- /here -->\nwords\n")
    tables.fill(page, "here", "new")
    assert page.read_text() == "<!-- here -->\n\nnew\n\n<!-- /here -->\nwords\n"
    with pytest.raises(ValueError, match=r"page\.md: expected <!-- there --> and <!-- /there --> once each"):
        tables.fill(page, "there", "new")


def test_readme_says_what_the_tables_say():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"Dice \S+ / \S+ in \d+ processor seconds \(greedy \S+ / \S+ in \d+\)", text)
    assert sentence
    found = [float(number) for number in re.findall(r"\.?\d[\d.]*", sentence[0])]
    dice, seconds = {}, {}
    for cohort in ("ds002748", "ixi"):
        quality, costs = between("measured.md", f"registrations {cohort}").split("**What it cost**")
        dice[cohort] = {row["Model"]: row["Dice ↑"].strip("* ").split()[0].strip("*") for row in rows_of(quality)}
        seconds[cohort] = {row["Model"]: row["A sample \\[processor s\\] ↓"].strip("* ") for row in rows_of(costs)}
    expected = []
    for model in ("cortexgen", "greedy"):
        expected += [*(float(dice[cohort][model]) for cohort in dice), round(float(seconds["ds002748"][model]))]
    assert found == pytest.approx(expected)
    accuracies = re.search(r"accuracy (\S+) / ([.\d]+)", text)
    rows = [row for row in rows_of(between("measured.md", "appearance-mni152-2mm")) if row["set"] == "synthetic"]
    assert accuracies and [float(a) for a in accuracies.groups()] == [
        pytest.approx(float(row["told apart"]), abs=0.0051) for row in rows
    ]
