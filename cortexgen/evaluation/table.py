"""One list of rows as CSV, JSON, Markdown, LaTeX and HTML."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cortexgen.evaluation.markup import aligned, latex, markdown, one_line, paragraph, width
from cortexgen.io import write_text

PUBLISHED = "published"


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


Value = float | int | bool | str | Estimate | None
Row = Mapping[str, Value]


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        name: its key in the rows, and its name in CSV and JSON.
        title: its heading in Markdown and LaTeX; the name unless given.
        unit: of its numbers.
        better: which values are better: lower ones, higher ones, or those near a number.
        format: specification of its numbers; four significant digits, whole numbers in full, unless given.
    """

    name: str
    title: str = ""
    unit: str = ""
    better: Literal["lower", "higher"] | float | None = None
    format: str | None = None

    @property
    def heading(self) -> str:
        """Title, unit, and where better values lie."""
        sides = {"lower": " ↓", "higher": " ↑", None: ""}
        unit = f" [{self.unit}]" if self.unit else ""
        side = f" → {self.better:.3g}" if isinstance(self.better, float | int) else sides[self.better]
        return (self.title or self.name) + unit + side

    def badness(self, value: float) -> float:
        """What the best value of the column has least of."""
        if isinstance(self.better, str):
            return value if self.better == "lower" else -value
        return abs(value - (self.better or 0))


def measured(row: Row) -> bool:
    """Whether a row's values were measured, and not taken from a publication."""
    return not row.get(PUBLISHED)


class Table:
    """Rows and how they are shown; the same rows give the same bytes.

    A row whose column "published" holds a reference was published and not measured: Markdown and LaTeX mark it and
    give the reference below the table. Both show missing values as n/a, intervals in brackets, and the best value of
    a column in bold if the column says which is better and two rows or more compete.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        columns: Sequence[Column] = (),
        caption: str = "",
        notes: Sequence[str] = (),
        competes: Callable[[Row], bool] = measured,
    ) -> None:
        """Arguments:
            rows: a mapping of column to value each; NaN counts as missing.
            columns: those to show; all, in order of appearance, unless given.
            caption: above the table.
            notes: below it.
            competes: which rows may be best; the measured ones unless given.

        Raises:
            ValueError: if there is no column, or two have one name.
            TypeError: if a value is neither a number, text, an `Estimate` nor None.
        """
        names = dict.fromkeys(key for row in rows for key in row)
        self.columns = [c for c in columns or map(Column, names) if c.name != PUBLISHED]
        self.rows = [{n: _plain(row.get(n), n) for n in [*(c.name for c in self.columns), PUBLISHED]} for row in rows]
        self.caption, self.notes, self.competes = _encodable(caption), list(map(_encodable, notes)), competes
        self.references = list(dict.fromkeys(str(row[PUBLISHED]) for row in self.rows if row[PUBLISHED]))
        if not self.columns:
            raise ValueError("a table needs a column")
        flat = self._flat_names()
        if len(set(flat)) < len(flat):
            raise ValueError(f"two columns have one name: {', '.join(flat)}")

    def _flat_names(self) -> list[str]:
        names = []
        for column in self.columns:
            interval = any(isinstance(row[column.name], Estimate) for row in self.rows)
            names += [column.name, f"{column.name}_low", f"{column.name}_high"] if interval else [column.name]
        return names + [PUBLISHED] * bool(self.references)

    def flat(self) -> list[dict[str, float | int | bool | str | None]]:
        """The rows with intervals in columns of their own, `name_low` and `name_high`."""
        rows = []
        for row in self.rows:
            cells: dict[str, Any] = dict(row)
            for name, value in row.items():
                if isinstance(value, Estimate):
                    ends = {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
                    cells |= {key: _plain(end, key) for key, end in ends.items()}
            rows.append({name: cells.get(name) for name in self._flat_names()})
        return rows

    def to_csv(self) -> str:
        """Numbers in full, missing values as empty cells."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._flat_names())
        for row in self.flat():
            writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in row.values()])
        return text.getvalue()

    def to_json(self) -> str:
        """Caption, notes, columns and rows; infinite numbers, which JSON doesn't have, as text."""
        columns = [
            {"name": c.name, "title": c.title or c.name, "unit": c.unit, "better": c.better} for c in self.columns
        ]
        rows = [
            {name: str(v) if isinstance(v, float) and math.isinf(v) else v for name, v in row.items()}
            for row in self.flat()
        ]
        content = {"caption": self.caption, "notes": self.notes, "columns": columns, "rows": rows}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown."""
        right = self._right()
        head, *body = aligned(self._cells(markdown, "**{}**", "<sup>{}</sup>"), right)
        rule = ["-" * (width(cell) - r) + ":" * r for cell, r in zip(head, right, strict=True)]
        parts = [f"**{markdown(self.caption)}**"] if self.caption else []
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *body)))
        parts += [f"<sup>{mark}</sup> {markdown(note)}" for mark, note in self._footnotes()]
        parts += map(paragraph, self.notes)
        return "\n\n".join(parts) + "\n"

    def to_latex(self) -> str:
        """A `table` environment; the document needs the package booktabs."""
        head, *body = [
            " & ".join(cells) + r" \\"
            for cells in aligned(self._cells(latex, r"\textbf{{{}}}", r"\textsuperscript{{{}}}"), self._right())
        ]
        notes = [rf"\textsuperscript{{{mark}}} {latex(note)}" for mark, note in self._footnotes()]
        notes += [latex(note) for note in self.notes]
        lines = ["% \\usepackage{booktabs}", r"\begin{table}", r"\centering"]
        lines += [rf"\caption{{{latex(self.caption)}}}"] if self.caption else []
        lines += [rf"\begin{{tabular}}{{{''.join('lr'[r] for r in self._right())}}}", r"\toprule", head, r"\midrule"]
        lines += [*body, r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par\smallskip{{\footnotesize {note}\par}}" for note in notes]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def to_html(self) -> str:
        """A `table` element; its numbers have the class "number", rows that were published the class "published"."""
        right = [' class="number"' if r else "" for r in self._right()]
        head, *body = self._cells(lambda text: escape(one_line(text)), "<strong>{}</strong>", "<sup>{}</sup>")
        lines = ["<table>"]
        lines += [f"<caption>{escape(self.caption)}</caption>"] if self.caption else []
        cells = "".join(f'<th scope="col"{style}>{cell}</th>' for cell, style in zip(head, right, strict=True))
        lines.append(f"<thead><tr>{cells}</tr></thead><tbody>")
        for row, (name, *others) in zip(self.rows, body, strict=True):
            cells = "".join(f"<td{style}>{cell}</td>" for cell, style in zip(others, right[1:], strict=True))
            kind = ' class="published"' if row[PUBLISHED] else ""
            lines.append(f'<tr{kind}><th scope="row"{right[0]}>{name}</th>{cells}</tr>')
        return "\n".join([*lines, "</tbody></table>"])

    def below(self) -> list[str]:
        """The footnotes and notes as text."""
        return [f"{mark} {note}" for mark, note in self._footnotes()] + self.notes

    def write(self, stem: Path) -> list[Path]:
        """Write `stem.csv`, `.json`, `.md` and `.tex`, each atomically; returns their paths."""
        texts = {"csv": self.to_csv(), "json": self.to_json(), "md": self.to_markdown(), "tex": self.to_latex()}
        paths = [Path(f"{stem}.{suffix}") for suffix in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            write_text(path, text)
        return paths

    def _right(self) -> list[bool]:
        """Which columns hold numbers only."""
        return [all(row[c.name] is None or _number(row[c.name]) is not None for row in self.rows) for c in self.columns]

    def _footnotes(self) -> list[tuple[str, str]]:
        return [(_mark(k), f"published, not measured: {text}") for k, text in enumerate(self.references)]

    def _best(self, column: Column) -> str | None:
        """The best value of a column as it is shown; None if no two rows compete."""
        values = [_number(row[column.name]) for row in self.rows if self.competes(row)]
        found = [v for v in values if v is not None]
        if column.better is None or len(found) < 2:
            return None
        return _shown(min(found, key=column.badness), column.format)

    def _cells(self, escape: Callable[[str], str], bold: str, raised: str) -> list[list[str]]:
        """Headings and cells as text."""
        best = [self._best(column) for column in self.columns]
        lines = [[escape(column.heading) for column in self.columns]]
        for row in self.rows:
            cells = []
            for column, winner in zip(self.columns, best, strict=True):
                value = row[column.name]
                number = _number(value)
                cell = _shown(value if number is None else number, column.format)
                wins = number is not None and cell == winner and self.competes(row)
                cell = bold.format(escape(cell)) if wins else escape(cell)
                if isinstance(value, Estimate) and not math.isnan(value.low + value.high):
                    ends = f"[{_shown(value.low, column.format)}, {_shown(value.high, column.format)}]"
                    cell += " " + escape(ends)
                cells.append(cell)
            if row[PUBLISHED]:
                cells[0] += raised.format(_mark(self.references.index(str(row[PUBLISHED]))))
            lines.append(cells)
        return lines


def _plain(value: Any, column: str) -> Value:
    """A value in Python's own types; what isn't a number is None, and text can be encoded."""
    if isinstance(value, Estimate):
        ends = Estimate(float(value.value), float(value.low), float(value.high))
        return None if math.isnan(ends.value) else ends
    if value is None or isinstance(value, (bool, np.bool_)):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return None if math.isnan(value) else float(value)
    raise TypeError(f"column {column}: expected a number, text, an Estimate or None, got {type(value).__name__}")


def _encodable(text: str) -> str:
    """Names of files that aren't UTF-8 hold surrogates, which can't be written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(value: Value) -> float | int | None:
    if isinstance(value, Estimate):
        return value.value
    return None if value is None or isinstance(value, (bool, str)) else value


def _shown(value: Value, specification: str | None) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | Estimate):
        return str(value)
    default = "d" if isinstance(value, int) else ".4g"
    return format(value, specification or default).replace("-", "−")


def _mark(k: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[k] if k < 26 else str(k + 1)
