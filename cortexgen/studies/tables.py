"""Tables of a study: covariates under common names."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from cortexgen.errors import UserError
from cortexgen.io.bids import Row

COMMON = {  # our name: theirs, in order of preference
    "age": ["age", "age_at_scan", "age_at_visit", "visit_age", "age_years", "subject_age"],
    "sex": ["sex", "gender"],
    "group": ["group", "research_group", "diagnosis", "dx", "exceeds_bl_drinking"],
}
SUBJECT = ["participant_id", "subject", "subject_id", "ptid", "id"]
SESSION = ["session_id", "session", "visit"]
PATH = ["path", "image", "file", "filename"]
SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F"}
EMPTY = {"", "n/a", "na", "nan", "none", "null"}


def column_name(text: str) -> str:
    """Lower case, words joined by underscores: "Acq Date" is "acq_date"."""
    return re.sub(r"[^0-9a-z]+", "_", text.strip().lower()).strip("_")


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a table separated by tabs, commas or semicolons, as text, under normalized column names.

    Raises:
        UserError: if the file is missing, no UTF-8 text, or has no rows.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=max("\t,;", key=head.count)))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: expected a table in UTF-8 text ({error})") from None
    if not rows:
        raise UserError(f"{path}: the table has no rows")
    return [{column_name(k): (v or "").strip() for k, v in row.items() if k} for row in rows]


def header(path: Path) -> set[str]:
    """Normalized column names of a file that may be such a table."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return {column_name(name) for name in re.split("[\t,;]", file.readline())}
    except OSError:
        return set()


def field(row: dict[str, str], names: Iterable[str]) -> str:
    """The first value there is in columns of these names, "" if none."""
    return next((row[n] for n in names if row.get(n, "").lower() not in EMPTY), "")


def _value(text: str) -> str | float | None:
    if text.lower() in EMPTY:
        return None
    return float(text) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) else text


def _age(text: str) -> str | float | None:
    """Years; "063Y" and "89+" are such, too."""
    return _value(re.sub(r"(?<=\d)\s*(y|yrs?|years?|\+)$", "", text, flags=re.IGNORECASE))


def covariates(row: dict[str, str], without: Iterable[str] = ()) -> Row:
    """A row as covariates: `age` in years, `sex` M or F, `group`, and every other column under its own name.

    Arguments:
        row: of `read_table`.
        without: columns to leave out.
    """
    out: Row = {k: _value(v) for k, v in row.items() if k not in set(without)}
    for name, theirs in COMMON.items():
        found = field(row, theirs)
        if found:
            out[name] = _age(found) if name == "age" else _value(found)
    if isinstance(out.get("sex"), str):
        out["sex"] = SEXES.get(out["sex"].lower(), out["sex"])
    return out
