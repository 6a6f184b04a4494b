"""Raw data sets in BIDS."""

from collections.abc import Sequence
from pathlib import Path

from cortexgen.io.bids import scan_folders
from cortexgen.io.naming import is_nifti, no_file
from cortexgen.io.participants import Rows, read_rows, read_sessions, row_of
from cortexgen.io.paths import label, labels_of, name_of, visible
from cortexgen.studies.candidates import Candidate, natural
from cortexgen.studies.study import Study


def read_bids(root: Path, table: Path | None = None) -> list[Candidate]:
    """Every `sub-*/[ses-*/]anat/*_T1w.nii[.gz]`, with its rows of participants.tsv and `sub-*_sessions.tsv`.

    Where there is a participants.tsv, a subject without a row and a row without an image are problems.

    Arguments:
        table: instead of participants.tsv; may have a column of sessions.
    """
    table = table or next((p for p in [root / "participants.tsv", root / "participants.csv"] if p.is_file()), None)
    scans = scan_folders(root)
    places = {folder: labels_of(name) for folder, (name, _) in scans.items()}
    rows = by_scan(table, list(places.values()))
    of_session = read_sessions([(root / f.relative_to(root).parts[0], session) for f, (_, session) in places.items()])
    candidates = []
    for (folder, (subject, session)), more in zip(places.items(), of_session, strict=True):
        row, problem = row_of(rows, subject, session, table)
        row = row | more
        age = row.get("age")
        order = (age if isinstance(age, float) else 0.0, natural(session))
        for path in (p for p in visible(folder) if is_nifti(p) and "_t1w.nii" in p.name.lower()):
            why = scans[folder][1] or no_file(path) or problem
            where = path.relative_to(root).as_posix()
            candidates.append(Candidate(subject, session, path, where, row, order, problem=why))
    return candidates + rows_without_image(rows, candidates, table)


def by_scan(table: Path | None, scans: Sequence[tuple[str, str]]) -> Rows:
    """Covariates by labels of subject and session, "" where the table has none; those of the scans under their names.

    Raises:
        UserError: if the table has no column of subjects.
    """
    if table is None:
        return {}
    known = {subject for subject, _ in scans}
    rows: Rows = {}
    for (subject, session), found in read_rows(table, scans).items():
        rows.setdefault((subject if subject in known else label(subject), label(session)), []).extend(found)
    return rows


def rows_without_image(rows: Rows, candidates: list[Candidate], table: Path | None) -> list[Candidate]:
    """A problem for each row that has no image."""
    subjects, scans = {c.subject for c in candidates}, {(c.subject, c.session) for c in candidates}
    missing = []
    for (subject, session), found in rows.items():
        if (subject, session) not in scans and (session or subject not in subjects):
            what = name_of(subject, session)
            problem = f"{table} has a row for {what}, but there is no T1w image"
            order = (0.0, natural(session))
            missing.append(Candidate(subject, session, Path(), what, found[0], order, absent=True, problem=problem))
    return missing


BIDS = Study("sub-* (BIDS)", lambda root: any(p.is_dir() for p in visible(root, "sub-*")), read_bids, order=10)
