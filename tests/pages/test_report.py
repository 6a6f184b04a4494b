import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from cortexgen.evaluation.table import Column, Table
from cortexgen.metrics.resampling import Interval
from cortexgen.pages.report import Report

VOID = {"meta", "link", "img"}
NASTY = '<script>alert("x")</script> & "quoted" \'text\''


class Page(HTMLParser):
    """Elements of a page, with a check that they nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _figure():
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1])
    return figure


def _report(sections=2):
    report = Report("Title " + NASTY, "Subtitle " + NASTY)
    for k in range(sections):
        report.section(f"Section {k} {NASTY}", f"First {NASTY}\n\nSecond paragraph")
        report.figure(_figure(), f"Caption {NASTY}")
    report.table(
        [
            {"subject": NASTY, "dice": 0.83456, "n": 1200, "folds": None},
            {"subject": "b", "dice": np.float32(-0.5), "n": 7},
        ],
        "Table " + NASTY,
        {"dice": ".2f", "n": ",d"},
    )
    report.key_figures([("Label " + NASTY, "12.3", "note " + NASTY), ("Dice", ".83", "")])
    return report


def test_page_is_whole_and_stands_alone(tmp_path):
    path = tmp_path / "report.html"
    _report().write(path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    images = page.all("img")
    assert len(images) == 2 == len(page.all("figure")) == len(page.all("figcaption"))
    for image in images:
        kind, content = image["src"].split(",")
        assert kind == "data:image/webp;base64" and base64.b64decode(content)[8:12] == b"WEBP"
        assert image["alt"] == f"Caption {NASTY}" and (image["width"], image["height"]) == ("300", "150")
    bare = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "//" not in bare and "url(" not in bare and "@import" not in bare
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text and "@media print" in text


def test_everything_given_is_escaped():
    text = _report(6).render()
    page = Page(text)
    assert not page.all("script") and "<script" not in text
    assert "".join(page.words).count(NASTY) == 2 + 6 * 3 + 6 + 2 + 2 + 1  # title twice; contents; table; card


def test_table_has_heads_and_formats():
    page = Page(_report().render())
    assert [h.get("scope") for h in page.all("th")] == ["col"] * 4 + ["row"] * 2
    for expected in ("0.83", "−0.50", "1,200", "n/a"):
        assert expected in page.words
    Page("".join(_empty_table()))


def _empty_table():
    report = Report("t")
    report.table([])
    return report.render()


@pytest.mark.parametrize(("sections", "expected"), [(4, 0), (5, 5)])
def test_contents_when_there_are_more_than_four_sections(sections, expected):
    page = Page(_report(sections).render())
    targets = [a["href"].removeprefix("#") for a in page.all("a")]
    assert len(targets) == expected and set(targets) <= {h["id"] for h in page.all("h2")}


def test_cards_stand_on_top_and_pages_are_reproducible():
    text = _report().render()
    assert text.index('class="cards"') < text.index("<h2")
    assert text == _report().render()


class Cells(HTMLParser):
    """Classes and cells of the rows of a page's table, as a browser would show them; best values, what is raised."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.rows, self.classes, self.open = [], [], []
        self.inside = {"strong": [], "sup": []}
        self.feed(text[text.index("<table>") : text.index("</table>")])
        self.close()

    def handle_starttag(self, tag, attrs):
        assert tag in ("table", "caption", "thead", "tbody", "tr", "th", "td", "strong", "sup")
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.classes.append(dict(attrs).get("class"))
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1] in self.inside:
            self.inside[self.open[-1]].append(data)
        if {"td", "th"} & set(self.open) and "sup" not in self.open:
            self.rows[-1][-1] += data


def _page_of(table):
    report = Report("t")
    report.results(table)
    return report.render()


HOSTILE = [
    "a|b",
    "R&D 100% #1_x {{ y }} {% z %} $z$ ^~ \\cmd",
    "two\nlines\r\nand\ta tab",
    "α-WGAN ± 脳 é",
    "[x](http://y) <b>*bold*</b> `code` &amp;",
    "a \"quoted\", 'one'; =1+1",
    "nul\x00 bell\x07",
    " ",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_plain_text_of_one_cell(name):
    columns = [Column("method"), Column("fid", "FID <", better="lower")]
    text = _page_of(Table([{"method": name, "fid": 1.5}], columns, '"<b>caption</b>" & more'))
    assert Cells(text).rows == [["method", "FID < ↓"], [re.sub("[\x00\x07]", "\ufffd", " ".join(name.split())), "1.5"]]
    assert "<caption>&#34;&lt;b&gt;caption&lt;/b&gt;&#34; &amp; more</caption>" in text


def test_intervals_best_values_and_marks_of_what_was_published():
    rows = [
        {"method": "a", "x": 2.0, "n": 1},
        {"method": "b", "x": 1.0, "n": 2},
        {"method": "c", "x": Interval(3.0, 2.5, 3.5), "n": 3},
        {"method": "theirs", "x": 0.5, "published": "Doe & Roe"},
    ]
    text = _page_of(Table(rows, [Column("method"), Column("x", better="lower"), Column("n")], notes=["a <note>"]))
    found = Cells(text)
    assert found.rows[1:] == [["a", "2", "1"], ["b", "1", "2"], ["c", "3 [2.5, 3.5]", "3"], ["theirs", "0.5", "n/a"]]
    assert found.inside == {"strong": ["1"], "sup": ["a"]}
    assert found.classes == [None, None, None, None, "published"]
    notes = ["a published, not measured: Doe &amp; Roe", "a &lt;note&gt;"]
    assert re.findall('<p class="notes">(.*?)</p>', text) == notes
    assert text.count('class="number"') == 2 + 2 * 4


def test_names_that_are_not_utf8_can_still_be_written(tmp_path):
    name = b"sub-\xff".decode("utf-8", "surrogateescape")
    report = Report(name, name)
    report.section(name, name)
    report.table([{"scan": name}], name)
    report.key_figures([(name, "1", name)])
    report.write(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("sub-?") == 9
