"""One self-contained HTML page: text, tables and figures, without scripts or anything from elsewhere."""

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cortexgen.evaluation.table import Table
from cortexgen.figures.brains import to_png
from cortexgen.io import write_text

CONTENTS_FROM = 5

_STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --ink: #1d2125; --soft: #5b646d; --line: #dfe3e6;
  --accent: #24598f; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1d2226; --ink: #e6e8ea; --soft: #a0a8b0;
  --line: #343b41; --accent: #8fbcec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { max-width: 46rem; margin: .6rem 0; }
.subtitle { color: var(--soft); margin-top: .4rem; }
a { color: var(--accent); }
nav ol { columns: 16rem; padding-left: 1.3rem; margin: .3rem 0 0; }
nav { margin: 1.5rem 0; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.75rem 0; }
.cards div { flex: 1 1 10rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; }
.cards dt { color: var(--soft); font-size: .85rem; }
.cards dd { margin: 0; }
.cards .value { font-size: 1.6rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.cards .note { color: var(--soft); font-size: .8rem; line-height: 1.35; }
figure { margin: 1.5rem 0; }
figure img { display: block; width: 100%; height: auto; border-radius: .4rem; }
figcaption, caption { color: var(--soft); font-size: .9rem; text-align: left; }
figcaption { margin-top: .5rem; max-width: 46rem; }
caption { padding-bottom: .5rem; }
.scroll { overflow-x: auto; margin: 1.25rem 0; }
figure .scroll { margin: 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
tbody th { font-weight: 500; }
td { max-width: 26rem; }
.number { text-align: right; }
td.number { white-space: nowrap; }
.published { color: var(--soft); }
.notes { color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { main { padding: 1.25rem 1rem 3rem; } h1 { font-size: 1.5rem; }
  figure img { min-width: 40rem; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --accent: #000; }
  main { max-width: none; padding: 0; } figure, .cards div, tr { break-inside: avoid; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } figure img { min-width: 0; print-color-adjust: exact; } }
"""


class Report:
    """A page built from top to bottom.

    Everything a caller gives is escaped; the same calls write the same bytes. Key figures stand on top whenever they
    are given; a table of contents follows them if there are more than four sections.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._cards: list[tuple[str, str, str]] = []
        self._sections: list[str] = []
        self._body: list[str] = []
        self._figures = 0

    def key_figures(self, figures: Sequence[tuple[str, str, str]]) -> None:
        """Cards of (label, value, note)."""
        self._cards += figures

    def section(self, heading: str, text: str = "") -> None:
        """Begin a section."""
        self._sections.append(heading)
        self._body.append(f'<h2 id="section-{len(self._sections)}">{escape(heading)}</h2>')
        self.text(text)

    def text(self, text: str) -> None:
        """Plain text; blank lines part paragraphs."""
        paragraphs = (p.strip() for p in text.split("\n\n"))
        self._body += [f"<p>{escape(p)}</p>" for p in paragraphs if p]

    def figure(self, figure: Figure, caption: str, alt: str | None = None, dpi: float = 150) -> None:
        """A figure with its number and caption; `alt`, the caption unless given, is for those who cannot see it."""
        self._figures += 1
        png = to_png(figure, dpi)
        width, height = struct.unpack(">II", png[16:24])
        number = f"Figure {self._figures}"
        source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        self._body.append(
            f'<figure><div class="scroll" tabindex="0" role="group" aria-label="{number}">'
            f'<img src="{source}" width="{width}" height="{height}" alt="{escape(alt or caption)}">'
            f"</div><figcaption><strong>{number}.</strong> {escape(caption)}</figcaption></figure>"
        )

    def table(
        self, rows: Sequence[Mapping[str, Any]], caption: str = "", formats: Mapping[str, str] | None = None
    ) -> None:
        """A table; columns in order of appearance, the first one heads each row, missing values are n/a.

        Arguments:
            rows: a mapping of column to value each.
            formats: format specification of a column's numbers, as ".3f"; four significant digits otherwise.
        """
        columns = list(dict.fromkeys(key for row in rows for key in row))
        numeric = {c for c in columns if all(_is_number(row[c]) for row in rows if row.get(c) is not None)}
        style = {c: ' class="number"' if c in numeric else "" for c in columns}
        lines = ['<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>']
        if caption:
            lines.append(f"<caption>{escape(caption)}</caption>")
        head = "".join(f'<th scope="col"{style[c]}>{escape(c)}</th>' for c in columns)
        lines.append(f"<thead><tr>{head}</tr></thead><tbody>")
        for row in rows:
            cells = [escape(_text(row.get(c), (formats or {}).get(c))) for c in columns]
            tags = ['th scope="row"' if k == 0 else "td" for k in range(len(columns))]
            parts = zip(tags, columns, cells, strict=True)
            line = "".join(f"<{tag}{style[c]}>{cell}</{tag.split()[0]}>" for tag, c, cell in parts)
            lines.append(f"<tr>{line}</tr>")
        self._body.append("\n".join(lines) + "\n</tbody></table></div>")

    def results(self, table: Table) -> None:
        """A table with intervals, its best values in bold, and its notes below."""
        self._body.append('<div class="scroll" tabindex="0" role="group" aria-label="Table">')
        self._body.append(table.to_html() + "</div>")
        self._body += [f'<p class="notes">{escape(note)}</p>' for note in table.below()]

    def write(self, path: Path) -> None:
        """Write the page atomically; what UTF-8 doesn't have, as in some names of files, becomes a question mark."""
        write_text(Path(path), self.render().encode("utf-8", "replace").decode("utf-8"))

    def render(self) -> str:
        """The page as text."""
        head = [f"<h1>{escape(self.title)}</h1>"]
        if self.subtitle:
            head.append(f'<p class="subtitle">{escape(self.subtitle)}</p>')
        if self._cards:
            head.append(f'<dl class="cards">{"".join(_card(*card) for card in self._cards)}</dl>')
        if len(self._sections) >= CONTENTS_FROM:
            entries = (f'<li><a href="#section-{k}">{escape(h)}</a></li>' for k, h in enumerate(self._sections, 1))
            head.append(f'<nav aria-label="Contents"><strong>Contents</strong><ol>{"".join(entries)}</ol></nav>')
        return "\n".join(
            [
                '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; """
                """style-src 'unsafe-inline'">""",
                f'<link rel="icon" href="data:,">\n<title>{escape(self.title)}</title>',
                f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n<header>",
                *head,
                "</header>",
                *self._body,
                "</main>\n</body>\n</html>\n",
            ]
        )


def _card(label: str, value: str, note: str) -> str:
    note = f'<dd class="note">{escape(note)}</dd>' if note else ""
    return f'<div><dt>{escape(label)}</dt><dd class="value">{escape(str(value))}</dd>{note}</div>'


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _text(value: Any, specification: str | None) -> str:
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return "n/a"
    if not _is_number(value):
        return str(value)
    default = "" if isinstance(value, Integral) else ".4g"
    return format(value, default if specification is None else specification).replace("-", "−")
