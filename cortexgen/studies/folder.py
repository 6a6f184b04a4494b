"""Plain folders of NIfTI files, and tables of paths."""

from pathlib import Path

from cortexgen.errors import UserError
from cortexgen.io.naming import is_analyze, is_nifti, named_after, no_file, unreadable
from cortexgen.io.participants import SESSION, SUBJECT, covariates, field, row_of
from cortexgen.io.paths import label
from cortexgen.io.tables import read_table
from cortexgen.studies.bids import by_scan, rows_without_image
from cortexgen.studies.candidates import Candidate, natural
from cortexgen.studies.study import Study

TABLES = (".csv", ".tsv", ".txt")
PATH = ["path", "image", "file", "filename"]


def read_folder(root: Path, table: Path | None = None) -> list[Candidate]:
    """The NIfTI files of a folder, or of a table with a column `path`.

    A file is named after its own name: "sub-01_ses-2_T1w.nii.gz" is "sub-01_ses-2", "old brain.nii" is "sub-oldbrain".

    Arguments:
        root: a folder, one NIfTI file, or a table.
        table: of covariates by subject (and session), or of paths; participants.tsv of the folder unless given.

    Raises:
        UserError: if it is another kind of file, or a table without paths.
    """
    if root.suffix.lower() in TABLES and root.is_file():
        return _listed(root)
    if not (root.is_dir() or is_nifti(root) or is_analyze(root)):
        raise UserError(f"{root}: expected a folder, a NIfTI file, or a table (.csv, .tsv)")
    if table and set(PATH) & set(read_table(table)[0]):
        return _listed(table)
    files = [root] if root.is_file() else sorted(p for p in root.iterdir() if is_nifti(p))
    usual = root / "participants.tsv"
    table = table or (usual if usual.is_file() else None)
    scans = {path: named_after(path) for path in files}
    rows = by_scan(table, list(scans.values()))
    candidates = []
    for path, (subject, session) in scans.items():
        row, problem = row_of(rows, subject, session, table)
        problem = no_file(path) or problem
        candidates.append(Candidate(subject, session, path, path.name, row, (0.0, natural(session)), problem=problem))
    return candidates + rows_without_image(rows, candidates, table)


def _listed(table: Path) -> list[Candidate]:
    """The rows of a table of paths, which are relative to the table."""
    lines = read_table(table)
    if not set(PATH) & set(lines[0]):
        raise UserError(f"{table}: expected a column path, found {', '.join(lines[0])}")
    candidates = []
    rows = covariates(lines, [*SUBJECT, *SESSION, *PATH], table)
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=2):
        text = field(line, PATH)
        path = table.parent / text
        subject = label(field(line, SUBJECT).removeprefix("sub-"))
        session = label(field(line, SESSION).removeprefix("ses-"))
        if not subject:
            subject, found = named_after(path)
            session = session or found
        problem = unreadable(path) if text else f"{table}: line {number} has no path"
        where = text or f"{table.name} line {number}"
        candidates.append(Candidate(subject, session, path, where, row, natural(session), problem=problem))
    return candidates


FOLDER = Study(
    "*.nii or *.nii.gz",
    lambda root: not root.is_dir() or any(map(is_nifti, root.iterdir())),
    read_folder,
    order=100,
    files=True,
)
