"""Raw data sets in BIDS."""

from pathlib import Path

from cortexgen.data.naming import no_file
from cortexgen.errors import UserError
from cortexgen.io.bids import Row
from cortexgen.studies.candidates import Candidate, is_nifti, label, natural
from cortexgen.studies.tables import SESSION, SUBJECT, covariates, field, read_table

Rows = dict[tuple[str, str], list[Row]]


def read_bids(root: Path, table: Path | None = None) -> list[Candidate]:
    """Every `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, with its rows of participants.tsv and `sub-*_sessions.tsv`.

    Where there is a participants.tsv, a subject without a row and a row without an image are problems.

    Arguments:
        table: instead of participants.tsv; may have a column of sessions.
    """
    table = table or next((p for p in [root / "participants.tsv", root / "participants.csv"] if p.is_file()), None)
    rows: Rows = by_scan(table) if table else {}
    candidates = []
    for folder in sorted([*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]):
        parts = folder.parent.relative_to(root).parts
        subject, session = parts[0].removeprefix("sub-"), parts[1].removeprefix("ses-") if len(parts) > 1 else ""
        more = _sessions(root / parts[0]).get(session, {})
        for path in sorted(p for p in folder.iterdir() if is_nifti(p) and "_t1w.nii" in p.name.lower()):
            row, problem = row_of(rows, subject, session, table)
            row = row | {k: v for k, v in more.items() if v is not None}
            problem = no_file(path) or problem
            age = row.get("age")
            order = (age if isinstance(age, float) else 0.0, natural(session))
            where = path.relative_to(root).as_posix()
            candidates.append(Candidate(subject, session, path, where, row, order, problem=problem))
    return candidates + rows_without_image(rows, candidates, table)


def by_scan(table: Path) -> Rows:
    """Covariates by (subject, session), session "" where the table has none.

    Raises:
        UserError: if it has no column of subjects.
    """
    lines = read_table(table)
    if not set(SUBJECT) & set(lines[0]):
        raise UserError(f"{table}: expected a column participant_id, found {', '.join(lines[0])}")
    rows: Rows = {}
    for line in lines:
        subject, session = scan_of(line)
        if subject:
            rows.setdefault((subject, session), []).append(covariates(line, [*SUBJECT, *SESSION]))
    return rows


def row_of(rows: Rows, subject: str, session: str, table: Path | None) -> tuple[Row, str]:
    """A scan's covariates, and what is wrong with them: no row in a table that has some, or several."""
    found = rows.get((subject, session)) or rows.get((subject, ""), [])
    if not rows or len(found) == 1:
        return (found[0] if found else {}), ""
    return {}, f"{table} has {len(found) or 'no'} row{'s' * bool(found)} for sub-{subject}"


def scan_of(line: dict[str, str]) -> tuple[str, str]:
    """Labels of subject and session that a row names."""
    subject, session = field(line, SUBJECT), field(line, SESSION)
    return label(subject.removeprefix("sub-")), label(session.removeprefix("ses-"))


def rows_without_image(rows: Rows, candidates: list[Candidate], table: Path | None) -> list[Candidate]:
    """A problem for each row that has no image."""
    subjects, scans = {c.subject for c in candidates}, {(c.subject, c.session) for c in candidates}
    missing = []
    for (subject, session), found in rows.items():
        if (subject, session) not in scans and (session or subject not in subjects):
            what = f"sub-{subject}" + (f"_ses-{session}" if session else "")
            problem = f"{table} has a row for {what}, but there is no T1w image"
            order = (0.0, natural(session))
            missing.append(Candidate(subject, session, Path(), what, found[0], order, absent=True, problem=problem))
    return missing


def _sessions(folder: Path) -> dict[str, Row]:
    """Covariates of a subject's sessions."""
    path = folder / f"{folder.name}_sessions.tsv"
    if not path.is_file():
        return {}
    return {scan_of(line)[1]: covariates(line, SESSION) for line in read_table(path)}
