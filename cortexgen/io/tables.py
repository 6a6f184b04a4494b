"""Tables that people and other programs write, as text."""

import csv
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from cortexgen.errors import UserError

Item = TypeVar("Item")
Key = TypeVar("Key")
# What stands for a value that is not known.
EMPTY = {"", "n/a", "na", "n.a.", "#n/a", "nan", "inf", "-inf", "none", "null", "-", "--", "?", "."}
COHORT = "cohort"  # the column that says which of several cohorts a subject is of, by its name
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
Line = dict[str, str]


def column_name(text: str) -> str:
    """Lower case, words joined by underscores: "Acq Date" is "acq_date"."""
    return re.sub(r"[^0-9a-z]+", "_", text.strip().lower()).strip("_")


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """The items of each key, in their order."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def read_table(path: Path) -> list[Line]:
    """Rows of a table separated by tabs, commas or semicolons, as text, under normalized column names.

    Rows without any value are left out, cells that a short row lacks are empty.

    Raises:
        UserError: if the file is missing, no UTF-8 text, has no rows, a row is longer than the header, or two columns
            of one name differ.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected a table in UTF-8 text ({error}); save it as UTF-8") from None
    if "\0" in text:
        raise UserError(f"{path}: expected a table in UTF-8 text, found zero bytes, as in UTF-16; save it as UTF-8")
    lines = [line for line in _cells(path, text) if any(cell.strip() for cell in line[1])]
    if len(lines) < 2:
        raise UserError(f"{path}: the table has no rows")
    names = [column_name(cell) for cell in lines[0][1]]
    return [_line(path, names, number, cells) for number, cells in lines[1:]]


def header(path: Path) -> set[str]:
    """Normalized column names of a file that may be such a table."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return {column_name(name) for name in re.split("[\t,;]", file.readline())}
    except OSError:
        return set()


def _cells(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """The cells of each row, with the number of the line where it ends.

    Quotes around cells are taken away, unless they have no counterpart or would hide whole rows.
    """
    delimiter = max("\t,;", key=text.lstrip().split("\n", 1)[0].count)
    found: list[list[tuple[int, list[str]]]] = []
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        try:
            found.append([(reader.line_num, cells) for cells in reader])
        except csv.Error as error:
            reason = f"line {reader.line_num} cannot be read ({error})"
    if not found:
        raise UserError(f"{path}: {reason}")
    plain_fits = len({len(cells) for _, cells in found[-1] if cells}) == 1
    hidden = any("\n" in cell for _, cells in found[0] for cell in cells)
    return found[-1] if hidden and plain_fits else found[0]


def _line(path: Path, names: list[str], number: int, cells: list[str]) -> Line:
    if any(cell.strip() for cell in cells[len(names) :]):
        raise UserError(f"{path}: line {number} has {len(cells)} cells, the header {len(names)}")
    line: Line = {}
    for name, cell in zip(names, [*cells, *[""] * len(names)], strict=False):
        if name and line.setdefault(name, cell.strip()) != cell.strip():
            raise UserError(f"{path}: two columns are called {name}, and differ in line {number}")
    return line
