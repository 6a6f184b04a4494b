"""Covariates of subjects and sessions, from tables that people write in their own ways: the one reader of them."""

import json
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from cortexgen.errors import UserError
from cortexgen.io.bids import Row
from cortexgen.io.tables import COHORT, EMPTY, NUMBER, Line, column_name, grouped, read_table

COMMON = {  # our name: theirs, in order of preference
    "age": ["age", "age_at_scan", "age_at_visit", "visit_age", "age_years", "subject_age"],
    "sex": ["sex", "gender"],
    "group": ["group", "research_group", "diagnosis", "dx", "exceeds_bl_drinking"],
}
MONTHS = ["age_months", "age_in_months", "age_mo", "interview_age"]
SUBJECT = ["participant_id", "subject", "subject_id", "ptid", "id"]
SESSION = ["session_id", "session", "visit"]
SEXES = {"m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F"}

UNITS = {"": 1.0, "+": 1.0, "y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # a year, in each
Rows = dict[tuple[str, str], list[Row]]


def field(row: Line, names: Iterable[str]) -> str:
    """The first value there is in columns of these names, "" if none."""
    return next((row[n] for n in names if row.get(n, "").lower() not in EMPTY), "")


def _number(text: str) -> float | None:
    """A number, but for whole ones that are names: 007, and what has more digits than a float keeps."""
    if not re.fullmatch(NUMBER, text) or re.match(r"[+-]?0\d", text):
        return None
    value = float(text)
    if not math.isfinite(value):
        return None
    return value if not re.fullmatch(r"[+-]?\d+", text) or int(value) == int(text) else None


def _column(name: str, texts: Sequence[str]) -> list[Any]:
    """A column as numbers if all its values are some, else as text; identifiers stay text, as 007 does."""
    known = [text for text in texts if text.lower() not in EMPTY]
    commas = [text for text in known if re.fullmatch(r"[+-]?\d+,\d+", text)]
    if all(re.search(r"^\D?\d{1,3},\d{3}$", text) for text in commas):
        commas = []  # 1,234 may be either
    plain = {text: text.replace(",", ".") if text in commas else text for text in known}
    numbers = {text: _number(value) for text, value in plain.items()}
    if name in ("id", COHORT) or name.endswith("_id") or None in numbers.values():
        return [None if text.lower() in EMPTY else text for text in texts]
    return [numbers.get(text) for text in texts]


def _years(text: str) -> float | None:
    """An age: "63", "063Y", "89+", "> 89", "25,5"; "300M", "1300W" and "9100D" are months, weeks and days."""
    unit = r"(\+|y(?:rs?|ears?)?|m(?:o|on|os|onths?)?|w(?:eeks?)?|d(?:ays?)?)?\.?(?: old)?"
    found = re.fullmatch(r"[>≥]?=?\s*(\d+(?:[.,]\d+)?)\s*" + unit, text.strip().lower())
    return float(found[1].replace(",", ".")) / UNITS[(found[2] or "")[:1]] if found else None


def covariates(lines: Sequence[Line], without: Iterable[str] = (), table: Path | None = None) -> list[Row]:
    """Rows as covariates: `age` in years, `sex` M or F, `group`, and every other column under its own name.

    Arguments:
        lines: of `read_table`.
        without: columns to leave out.
        table: what warnings name.
    """
    columns = {k: _column(k, [line[k] for line in lines]) for k in lines[0] if k not in set(without)}
    for name, theirs in COMMON.items():
        found = [field(line, theirs) for line in lines]
        if any(found):
            columns[name] = _column(name, found)
    ages = [field(line, COMMON["age"]) or re.sub(r"(?<=\d)$", "m", field(line, MONTHS)) for line in lines]
    if any(ages):
        columns["age"] = [_years(text) for text in ages]
        odd = [text for text, age in zip(ages, columns["age"], strict=True) if text and age is None]
        if odd:
            place = f"{table}: " if table else ""
            warnings.warn(f"{place}{len(odd)} age(s) are no number of years, {odd[0]!r} for one: unknown", stacklevel=2)
    if "sex" in columns:
        columns["sex"] = [SEXES.get(v.lower(), v) if isinstance(v, str) else v for v in columns["sex"]]
        if table and any(isinstance(v, float) for v in columns["sex"]):
            warnings.warn(f"{table}: sex is a number; Levels in {table.stem}.json would say of what", stacklevel=2)
    return [{k: values[i] for k, values in columns.items()} for i in range(len(lines))]


def _described(lines: Sequence[Line], table: Path) -> list[Line]:
    """Lines with the sex spelt out and the age's unit, where the table's JSON file says what they are."""
    try:
        content = json.loads(table.with_suffix(".json").read_text(encoding="utf-8-sig"))
        known = {column_name(k): v for k, v in content.items() if isinstance(v, dict)}
    except (OSError, ValueError, AttributeError):
        return list(lines)
    out = [dict(line) for line in lines]
    for name in set(lines[0]) & set(known):
        levels, unit = known[name].get("Levels"), str(known[name].get("Units", "")).lower()
        for line in out:
            if name in COMMON["sex"] and isinstance(levels, dict) and isinstance(levels.get(line[name]), str):
                line[name] = levels[line[name]]
            if name in COMMON["age"] and unit.startswith(("month", "week", "day")) and line[name][-1:].isdigit():
                line[name] += unit[0]
    return out


def _bare(text: str) -> str:
    return re.sub(r"[\W_]", "", re.sub(r"^(\d+)\.0+$", r"\1", text))  # 1.0 is 1 in a column read as numbers


def matched(ids: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """For each id of a table the name meant, if there is one: alike, or but for signs, case, and zeros in front of
    numbers where no other id and no other name would be."""
    out: dict[str, str] = {}
    left, free = set(ids), set(names)
    for key in (str, _bare, lambda t: _bare(t).casefold(), lambda t: re.sub(r"0*(\d+)", r"\1", _bare(t).casefold())):
        here, there = grouped(left, key), grouped(free, key)
        out |= {here[k][0]: there[k][0] for k in set(here) & set(there) if len(here[k]) == len(there[k]) == 1}
        left, free = left - set(out), free - set(out.values())
    return out


def _label(text: str, prefix: str) -> str:
    return re.sub(f"^{prefix}-", "", text.strip(), flags=re.IGNORECASE)


def read_rows(table: Path, scans: Iterable[tuple[str, str]], subject: Sequence[str] = SUBJECT) -> Rows:
    """Covariates by subject and session, both without prefix; session "" where the table has none.

    An id that means one of the scans' subjects stands under its name, others under their own; of rows that are alike
    there is one.

    Arguments:
        scans: subject and session of each.
        subject: columns that may name the subject.

    Raises:
        UserError: if the table can't be read, or has no such column.
    """
    lines = _described(read_table(table), table)
    if not set(subject) & set(lines[0]):
        raise UserError(f"{table}: expected a column {subject[0]}, found {', '.join(lines[0])}")
    return _rows(lines, list(scans), subject, table)


def _rows(lines: Sequence[Line], scans: Sequence[tuple[str, str]], subject: Sequence[str], table: Path) -> Rows:
    used = [next((n for n in names if n in lines[0]), "") for names in (subject, SESSION)]
    known = matched({_label(field(line, subject), "sub") for line in lines}, {s for s, _ in scans})
    members: dict[str, list[tuple[str, Row]]] = {}
    for line, row in zip(lines, covariates(lines, used, table), strict=True):
        who = _label(field(line, subject), "sub")
        if who:
            members.setdefault(known.get(who, who), []).append((_label(field(line, SESSION), "ses"), row))
    visits = grouped(scans, itemgetter(0))
    rows: Rows = {}
    for who, found in members.items():
        same = matched({when for when, _ in found}, {when for _, when in visits.get(who, []) if when})
        for when, row in found:
            alike = rows.setdefault((who, same.get(when, when)), [])
            alike += [row] if row not in alike else []
    return rows


def row_of(rows: Rows, subject: str, session: str, table: Path | None) -> tuple[Row, str]:
    """A scan's covariates, and what is wrong with them: no row in a table that has some, or several that differ."""
    found = rows.get((subject, session)) or rows.get((subject, ""), [])
    if not found and not session:
        found = [row for (name, _), several in rows.items() if name == subject for row in several]
    if not rows or len(found) == 1:
        return (found[0] if found else {}), ""
    if not found:
        return {}, f"{table} has no row for sub-{subject}" + (f", session {session}" if session else "")
    differ = [k for k in found[0] if any(row[k] != found[0][k] for row in found)]
    return {}, f"{table} has {len(found)} rows for sub-{subject}, which differ in {', '.join(differ[:4])}"


def read_sessions(places: Sequence[tuple[Path, str]]) -> list[Row]:
    """What is known of each session by the sessions.tsv in its subject's folder, if there is one.

    Raises:
        UserError: if a table can't be read, has no column of sessions, or two rows of a session differ.
    """
    tables = {path: _sessions(path, [s for _, s in there]) for path, there in grouped(places, itemgetter(0)).items()}
    found = [tables[folder].get(session, {}) for folder, session in places]
    return [{key: value for key, value in row.items() if value is not None} for row in found]


def _sessions(folder: Path, sessions: Sequence[str]) -> dict[str, Row]:
    path = folder / f"{folder.name}_sessions.tsv"
    if not any(sessions) or not path.is_file():
        return {}
    lines = _described(read_table(path), path)
    if not set(SESSION) & set(lines[0]):
        raise UserError(f"{path}: expected a column session_id, found {', '.join(lines[0])}")
    found = _rows([{"": "x"} | line for line in lines], [("x", s) for s in sessions], [""], path)
    several = [session for (_, session), rows in found.items() if len(rows) > 1]
    if several:
        raise UserError(f"{path}: rows of session {several[0]} differ")
    return {session: rows[0] for (_, session), rows in found.items()}


def read_covariates(root: Path, scans: Sequence[tuple[str, str]], warn: bool = True) -> list[Row]:
    """Covariates of a data set's scans, from participants.tsv and each subject's sessions.tsv, where they are.

    Arguments:
        scans: subject ("01") and session ("1", or "") of each.
        warn: of subjects without a row, or with several that differ: their covariates are unknown.

    Raises:
        UserError: if a table can't be read.
    """
    table = Path(root, "participants.tsv")
    rows = read_rows(table, scans, SUBJECT[:1]) if table.is_file() else {}
    of_session = read_sessions([(Path(root, f"sub-{subject}"), session) for subject, session in scans])
    found = [row_of(rows, subject, session, table) for subject, session in scans]
    out = [row | more for (row, _), more in zip(found, of_session, strict=True)]
    problems = {subject: problem for (subject, _), (_, problem) in zip(scans, found, strict=True) if problem}
    if problems and warn:
        some = ", ".join(f"sub-{s}" for s in list(problems)[:5]) + (", ..." if len(problems) > 5 else "")
        reason = next(iter(problems.values()))
        warnings.warn(f"covariates of {len(problems)} subject(s) are unknown ({some}): {reason}", stacklevel=3)
    return alike(out)


def alike(rows: Sequence[Row]) -> list[Row]:
    """Rows of several tables whose columns hold numbers or texts: a number among texts is one."""
    texts = {key for row in rows for key, value in row.items() if isinstance(value, str)}
    return [{k: spelt(v) if k in texts else v for k, v in row.items()} for row in rows]


def spelt(value: Any) -> Any:
    """A number as a table has it, which was taken for one among texts."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else value
