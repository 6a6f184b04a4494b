import csv
import io
import json
import math
import re

import numpy as np
import pytest

from cortexgen.evaluation.table import Column, Table
from cortexgen.metrics.resampling import Interval

HOSTILE = [
    "a|b",
    "R&D 100% #1_x {y} $z$ ^~ \\cmd",
    "two\nlines\r\nand\ta tab",
    "α-WGAN ± 脳 é",
    "[x](http://y) <b>*bold*</b> `code` &amp;",
    "[1ex] -- ---",
    'a "quoted", one; =1+1',
    "nul\x00 bell\x07",
    " ",
]
COLUMNS = [Column("method"), Column("fid", "FID", better="lower"), Column("n", "N")]


def rows_of(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.to_csv(), newline="")))


def cells_of(markdown: str) -> list[list[str]]:
    """Cells of the table in a Markdown text, as a browser would show them."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    cells: list[list[str]] = []
    tokens = parser.parse(markdown)
    for k, token in enumerate(tokens):
        if token.type == "tr_open":
            cells.append([])
        elif token.type in ("td_open", "th_open"):
            content = tokens[k + 1]
            assert all(child.type in ("text", "strong_open", "strong_close", "html_inline", "text_special")
                       for child in content.children)  # fmt: skip
            cells[-1].append("".join(c.content for c in content.children if c.type.startswith("text")))
    return cells


LATEX = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textasciigrave{}": "`",
    r"\textbar{}": "|", r"\textless{}": "<", r"\textgreater{}": ">", r"$\alpha$": "α", r"$\pm$": "±",
    "{''}": '"', "-{}": "-", "{[}": "[", "{]}": "]", "{*}": "*",
}  # fmt: skip


def without_latex(text: str) -> str:
    """What LaTeX would print, of the escapes that the hostile names need."""
    for code, shown in LATEX.items():
        text = text.replace(code, shown)
    return re.sub(r"\\([&%$#_{}])", r"\1", text)


def on_one_line(name: str) -> str:
    return " ".join(name.split()).replace("\x00", "\ufffd").replace("\x07", "\ufffd")


def test_csv_and_json_give_back_every_value_and_intervals_in_columns_of_their_own():
    values = [
        {"method": "a", "fid": Interval(0.1, -0.25, 1 / 3), "n": 400, "ok": True},
        {"method": "b", "fid": np.float32(0.5), "n": np.int64(7), "ok": np.bool_(False)},
        {"method": None, "fid": float("nan"), "n": None},
        {"method": "d", "fid": Interval(float("nan"), 0, 1), "psnr": float("inf")},
    ]
    table = Table(values)
    read = rows_of(table)
    assert list(read[0]) == ["method", "fid", "fid_low", "fid_high", "n", "ok", "psnr"]
    assert [float(read[0][k]) for k in ("fid", "fid_low", "fid_high")] == [0.1, -0.25, 1 / 3]
    assert (read[0]["n"], read[0]["ok"], read[1]["ok"]) == ("400", "true", "false")
    assert (read[1]["fid"], read[1]["fid_low"], read[1]["n"]) == ("0.5", "", "7")
    assert set(read[2].values()) == {""} and read[3]["fid"] == "" and float(read[3]["psnr"]) == float("inf")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    content = json.loads(table.to_json(), parse_constant=refuse)
    first, second, third, fourth = content["rows"]
    assert (first["fid"], first["fid_low"], first["fid_high"], first["n"], first["ok"]) == (
        0.1,
        -0.25,
        1 / 3,
        400,
        True,
    )
    assert (second["fid"], second["n"], second["ok"]) == (0.5, 7, False)
    assert set(third.values()) == {None} and fourth["psnr"] == "inf"


def test_hostile_names_come_back_from_csv_and_json_as_they_were():
    table = Table([{"method": name, "fid": 1.0, "a|b_&\n%": 2} for name in HOSTILE])
    assert [row["method"] for row in rows_of(table)] == HOSTILE
    assert [row["method"] for row in json.loads(table.to_json())["rows"]] == HOSTILE
    assert "a|b_&\n%" in rows_of(table)[0]


def test_hostile_names_are_plain_text_of_one_cell_in_markdown():
    table = Table([{"method": name, "fid": 1.5} for name in HOSTILE], COLUMNS[:2], "a *caption*", ["# 1_note", "1. x"])
    heading, *body = cells_of(table.to_markdown())
    assert heading == ["method", "FID ↓"] and body == [[on_one_line(name), "1.5"] for name in HOSTILE]
    html = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table").render(table.to_markdown())
    assert "<p># 1_note</p>" in html and "<p>1. x</p>" in html and "<strong>a *caption*</strong>" in html
    assert "<em>" not in html and "<h1" not in html and "<ol" not in html and "<a " not in html


def test_hostile_names_are_plain_text_of_one_cell_in_latex():
    text = Table([{"method": name, "fid": 1.5} for name in HOSTILE], caption="50% & more").to_latex()
    body = text[text.index("\\midrule\n") + 9 : text.index("\\bottomrule")].strip("\n").split("\n")
    assert len(body) == len(HOSTILE)
    for line, name in zip(body, HOSTILE, strict=True):
        assert line.endswith(r"1.5 \\") and not re.match(r"\s*[\[*]", line)  # that would be an option of \\
        first, _ = re.split(r"(?<!\\)&", line)
        assert without_latex(first).strip() == on_one_line(name)
        bare = re.sub(r"\\[&%$#_{}]", "", line.removesuffix(r"\\"))
        assert not re.search("[%#_^~|<>]", bare) and bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
        assert not re.search("--", bare)
    assert r"\caption{50\% \& more}" in text
    assert text.count(r"\begin") == text.count(r"\end") == 2 and "{tabular}{lr}" in text


def test_names_that_are_not_utf8_can_still_be_written(tmp_path):
    name = b"sub-\xff".decode("utf-8", "surrogateescape")
    table = Table([{"method": name, "fid": 1.0}], caption=name, notes=[name])
    table.write(tmp_path / "table")
    assert len(list(tmp_path.iterdir())) == 4
    assert rows_of(table)[0]["method"].startswith("sub-")


def test_columns_of_markdown_are_aligned_and_numbers_flush_right():
    rows = [{"method": "é", "fid": 1.25, "n": 3}, {"method": "脳 longer", "fid": 100.0}]
    assert Table(rows, COLUMNS).to_markdown().splitlines() == [
        "| method    |    FID ↓ |   N |",
        "|:----------|---------:|----:|",
        "| é         | **1.25** |   3 |",
        "| 脳 longer |      100 | n/a |",
    ]


BEST = [
    {"method": "a", "x": 2.0, "n": 1},
    {"method": "b", "x": 1.0, "n": 2},
    {"method": "c", "x": Interval(3.0, 2.5, 3.5), "n": 3},
]


@pytest.mark.parametrize(("better", "best"), [("lower", "1"), ("higher", "3"), (2.2, "2"), (None, None)])
def test_the_best_value_is_bold_where_the_column_says_what_is_better(better, best):
    table = Table(BEST, [Column("method"), Column("x", better=better), Column("n")])
    assert re.findall(r"\*\*(.*?)\*\*", table.to_markdown()) == ([best] if best else [])
    assert re.findall(r"\\textbf\{(.*?)\}", table.to_latex()) == ([best] if best else [])
    assert r"3 \[2.5, 3.5\]" in table.to_markdown().replace("**", "")


def test_equal_values_are_bold_together_and_a_single_one_is_not():
    column = [Column("x", better="lower", format=".1f")]
    assert Table([{"x": 1.01}, {"x": 1.02}, {"x": 1.3}], column).to_markdown().count("**1.0**") == 2
    assert "**" not in Table([{"x": 1.0}, {"x": None}], column).to_markdown()


def test_published_rows_are_marked_and_do_not_compete():
    rows = [
        {"method": "ours", "x": 2.0},
        {"method": "theirs", "x": 0.5, "published": "Doe & Roe, Table 1"},
        {"method": "other", "x": 3.0},
        {"method": "old", "x": 2.0, "published": "Poe"},
        {"method": "again", "x": 9.0, "published": "Doe & Roe, Table 1"},
    ]
    columns = [Column("method"), Column("x", better="lower")]
    markdown, latex = Table(rows, columns).to_markdown(), Table(rows, columns).to_latex()
    for line in ("theirs<sup>a</sup>", "old<sup>b</sup>", "again<sup>a</sup>", "**2**", "<sup>b</sup> published, not"):
        assert line in markdown
    assert r"<sup>a</sup> published, not measured: Doe \& Roe, Table 1" in markdown and "**0.5**" not in markdown
    assert markdown.count("**") == 2
    for line in (r"theirs\textsuperscript{a}", r"\textbf{2}", r"\textsuperscript{b} published, not measured: Poe"):
        assert line in latex
    assert [row["published"] for row in rows_of(Table(rows, columns))] == [row.get("published", "") for row in rows]
    assert "**0.5**" in Table(rows, columns, competes=lambda row: True).to_markdown()
    assert "published" not in Table(rows[:1]).to_csv()


def test_headings_say_unit_and_direction():
    columns = [
        Column("time", "Time", "s", "lower"),
        Column("ssim", "MS-SSIM", better=0.88),
        Column("dice", better="higher"),
    ]
    table = Table([{"time": -1.5, "ssim": 0.9, "dice": 12345}], columns)
    assert cells_of(table.to_markdown()) == [["Time [s] ↓", "MS-SSIM → 0.88", "dice ↑"], ["−1.5", "0.9", "12345"]]
    assert r"MS-SSIM $\to$ 0.88" in table.to_latex() and "$-$1.5" in table.to_latex()
    assert json.loads(table.to_json())["columns"][0] == {
        "name": "time",
        "title": "Time",
        "unit": "s",
        "better": "lower",
    }


def test_writing_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path):
    for folder in ("one", "two"):
        Table(BEST, caption="c", notes=["n"]).write(tmp_path / folder / "a.b")
    first, second = (sorted((tmp_path / folder).iterdir()) for folder in ("one", "two"))
    assert [p.name for p in first] == [p.name for p in second] == ["a.b.csv", "a.b.json", "a.b.md", "a.b.tex"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


@pytest.mark.parametrize(
    ("rows", "columns", "error", "text"),
    [
        ([], [], ValueError, "a table needs a column"),
        ([{"x": 1}], [Column("x"), Column("x")], ValueError, "two columns have one name"),
        ([{"x": Interval(1, 0, 2), "x_low": 0}], [], ValueError, "two columns have one name"),
        ([{"x": [1, 2]}], [], TypeError, "column x: expected a number, text, an Interval or None, got list"),
    ],
)
def test_what_is_no_table_is_refused(rows, columns, error, text):
    with pytest.raises(error, match=text):
        Table(rows, columns)


def test_a_table_without_rows_has_its_head():
    table = Table([], COLUMNS)
    assert table.to_csv() == "method,fid,n\n" and cells_of(table.to_markdown()) == [["method", "FID ↓", "N"]]


@pytest.mark.parametrize(
    "value, shape, shown",
    [
        (-0.004, ".2f", "0.00"),
        (-0.0, ".2f", "0.00"),
        (-0.004, "+.2f", "+0.00"),
        (-0.0004, ".1%", "0.0%"),
        (-0.0, None, "0"),
        (-3e-9, ".3g", "−3e−09"),
        (-0.006, ".2f", "−0.01"),
        (-math.inf, ".2f", "−inf"),
    ],
)
def test_what_is_rounded_to_zero_has_no_sign(value, shape, shown):
    table = Table([{"x": Interval(value, value, value)}], [Column("x", format=shape)])
    assert table.cells()[0][0][:2] == (shown, f"[{shown}, {shown}]")
