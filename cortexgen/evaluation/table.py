"""One list of rows as CSV, JSON, Markdown and LaTeX."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from cortexgen.evaluation.markup import latex, markdown, one_line, paragraph
from cortexgen.io import write_text
from cortexgen.metrics.resampling import Interval

PUBLISHED = "published"
Value = float | int | bool | str | Interval | None
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


class Cell(NamedTuple):
    """A cell as it is shown: one line of text, its interval in brackets, and the mark of a reference below the table.

    Attributes:
        best: whether its value is the best of its column.
    """

    text: str
    interval: str = ""
    mark: str = ""
    best: bool = False


class Table:
    """Rows and how they are shown; the same rows give the same bytes.

    A row whose column "published" holds a reference was published and not measured: where tables are read, and not
    computed with, it is marked and the reference stands below. There, missing values are n/a, intervals stand in
    brackets, and the best value of a column is bold if the column says which is better and two rows or more compete.
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
            TypeError: if a value is neither a number, text, an `Interval` nor None.
        """
        names = dict.fromkeys(key for row in rows for key in row)
        self.columns = [c for c in columns or map(Column, names) if c.name != PUBLISHED]
        self.rows = [{n: _plain(row.get(n), n) for n in [*(c.name for c in self.columns), PUBLISHED]} for row in rows]
        self.caption, self.notes, self.competes = _encodable(caption), list(map(_encodable, notes)), competes
        references = dict.fromkeys(str(row[PUBLISHED]) for row in self.rows if row[PUBLISHED])
        self.marks = {text: ascii_lowercase[k] if k < 26 else str(k + 1) for k, text in enumerate(references)}
        if not self.columns:
            raise ValueError("a table needs a column")
        self.flat()

    def flat(self) -> dict[str, list[Any]]:
        """The columns by name, intervals as three of them: `name`, `name_low` and `name_high`.

        Raises:
            ValueError: if two have one name.
        """
        flat: dict[str, list[Any]] = {}
        for name in [*(c.name for c in self.columns), *[PUBLISHED] * bool(self.marks)]:
            values = [row[name] for row in self.rows]
            parts: dict[str, Sequence[Value]] = {name: values}
            if any(isinstance(value, Interval) for value in values):
                ends = [value if isinstance(value, Interval) else (value, None, None) for value in values]
                parts = dict(zip((name, f"{name}_low", f"{name}_high"), zip(*ends, strict=True), strict=True))
            for key, found in parts.items():
                if key in flat:
                    raise ValueError(f"two columns have one name: {key}")
                flat[key] = [_plain(value, key) for value in found]
        return flat

    def to_csv(self) -> str:
        """Numbers in full, missing values as empty cells."""
        flat = {name: [str(v).lower() if isinstance(v, bool) else v for v in c] for name, c in self.flat().items()}
        return pd.DataFrame(flat, dtype=object).to_csv(index=False, lineterminator="\n")

    def to_json(self) -> str:
        """Caption, notes, columns and rows; infinite numbers, which JSON doesn't have, as text."""
        columns = [
            {"name": c.name, "title": c.title or c.name, "unit": c.unit, "better": c.better} for c in self.columns
        ]
        flat = self.flat()
        cells = [[str(v) if isinstance(v, float) and math.isinf(v) else v for v in column] for column in flat.values()]
        rows = [dict(zip(flat, line, strict=True)) for line in zip(*cells, strict=True)]
        content = {"caption": self.caption, "notes": self.notes, "columns": columns, "rows": rows}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown."""
        head, *body = self._lines(markdown, "**{}**", "<sup>{}</sup>")
        sides = ["right" if number else "left" for number in self.numbers]
        parts = [f"**{markdown(self.caption)}**"] if self.caption else []
        parts.append(pd.DataFrame(body, columns=head).to_markdown(index=False, disable_numparse=True, colalign=sides))
        parts += [f"<sup>{mark}</sup> {markdown(note)}" for mark, note in self._footnotes()]
        parts += map(paragraph, self.notes)
        return "\n\n".join(parts) + "\n"

    def to_latex(self) -> str:
        """A `table` environment; the document needs the package booktabs."""
        cells = self._lines(latex, r"\textbf{{{}}}", r"\textsuperscript{{{}}}")
        head, *body = [" & ".join(line) + r" \\" for line in cells]
        notes = [rf"\textsuperscript{{{mark}}} {latex(note)}" for mark, note in self._footnotes()]
        notes += [latex(note) for note in self.notes]
        lines = ["% \\usepackage{booktabs}", r"\begin{table}", r"\centering"]
        lines += [rf"\caption{{{latex(self.caption)}}}"] if self.caption else []
        lines += [rf"\begin{{tabular}}{{{''.join('lr'[n] for n in self.numbers)}}}", r"\toprule", head, r"\midrule"]
        lines += [*body, r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\par\smallskip{{\footnotesize {note}\par}}" for note in notes]
        return "\n".join([*lines, r"\end{table}"]) + "\n"

    def below(self) -> list[str]:
        """The footnotes and notes as text."""
        return [f"{mark} {note}" for mark, note in self._footnotes()] + self.notes

    def write(self, stem: Path) -> None:
        """Write `stem.csv`, `.json`, `.md` and `.tex`, each atomically."""
        texts = {"csv": self.to_csv(), "json": self.to_json(), "md": self.to_markdown(), "tex": self.to_latex()}
        for suffix, text in texts.items():
            write_text(Path(f"{stem}.{suffix}"), text)

    @property
    def numbers(self) -> list[bool]:
        """Which columns hold numbers only."""
        return [all(row[c.name] is None or _number(row[c.name]) is not None for row in self.rows) for c in self.columns]

    def _footnotes(self) -> list[tuple[str, str]]:
        return [(mark, f"published, not measured: {text}") for text, mark in self.marks.items()]

    def _best(self, column: Column) -> str | None:
        """The best value of a column as it is shown; None if no two rows compete."""
        values = [_number(row[column.name]) for row in self.rows if self.competes(row)]
        found = [v for v in values if v is not None]
        if column.better is None or len(found) < 2:
            return None
        return _shown(min(found, key=column.badness), column.format)

    def cells(self) -> list[list[Cell]]:
        """What is shown of each row."""
        best = [self._best(column) for column in self.columns]
        lines = []
        for row in self.rows:
            line = []
            for column, winner in zip(self.columns, best, strict=True):
                value, ends, number = row[column.name], "", _number(row[column.name])
                text = _shown(value if number is None else number, column.format)
                if isinstance(value, Interval) and not math.isnan(value.low + value.high):
                    ends = f"[{_shown(value.low, column.format)}, {_shown(value.high, column.format)}]"
                wins = number is not None and text == winner and self.competes(row)
                line.append(Cell(one_line(text), ends, best=wins))
            if row[PUBLISHED]:
                line[0] = line[0]._replace(mark=self.marks[str(row[PUBLISHED])])
            lines.append(line)
        return lines

    def _lines(self, escape: Callable[[str], str], bold: str, raised: str) -> list[list[str]]:
        """Headings, and the cells of each row, as text."""

        def text(cell: Cell) -> str:
            shown = bold.format(escape(cell.text)) if cell.best else escape(cell.text)
            shown += " " + escape(cell.interval) if cell.interval else ""
            return shown + raised.format(cell.mark) if cell.mark else shown

        return [[escape(c.heading) for c in self.columns], *([text(cell) for cell in line] for line in self.cells())]


def _plain(value: Any, column: str) -> Value:
    """A value in Python's own types; what isn't a number is None, and text can be encoded."""
    if isinstance(value, Interval):
        return None if math.isnan(value.value) else Interval(*map(float, value))
    if value is None or isinstance(value, (bool, np.bool_)):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return None if math.isnan(value) else float(value)
    raise TypeError(f"column {column}: expected a number, text, an Interval or None, got {type(value).__name__}")


def _encodable(text: str) -> str:
    """Names of files that aren't UTF-8 hold surrogates, which can't be written."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _number(value: Value) -> float | int | None:
    if isinstance(value, Interval):
        return value.value
    return None if value is None or isinstance(value, (bool, str)) else value


def _shown(value: Value, specification: str | None) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | Interval):
        return str(value)
    default = "d" if isinstance(value, int) else ".4g"
    shown = format(value, specification or default)
    if shown.startswith("-") and not any(figure in shown for figure in "123456789in"):  # no zero has a sign
        shown = shown.replace("-", "+" if "+" in (specification or "") else "", 1)
    return shown.replace("-", "−")
