"""ADNI as the Image and Data Archive of LONI delivers it."""

import re
from datetime import datetime
from pathlib import Path

from cortexgen.errors import UserError
from cortexgen.io.naming import is_nifti, unreadable
from cortexgen.io.participants import covariates, field
from cortexgen.io.paths import label, visible
from cortexgen.io.tables import header, read_table
from cortexgen.studies.candidates import Candidate, folders, named_folders, natural
from cortexgen.studies.study import Study

PTID = re.compile(r"\d{3}_S_\d{4,5}")
IMAGE = ["image_data_id", "image_id"]
SUBJECT = ["subject", "subject_id", "ptid"]
DATE = ["acq_date", "study_date", "scan_date", "image_date", "examdate"]
T1W = re.compile(r"mp[-_ ]?rage|(?<![a-z])mpr|spgr|t1(?!rho)", re.IGNORECASE)
OTHER = re.compile(
    r"mask|calib|(?<![a-z])cal(?![a-z])|scout|survey|locali[sz]er|phantom|mpr[-_ ](tra|cor|sag)", re.IGNORECASE
)
BASELINE = {"sc", "scmri", "bl", "init", "v01", "v02", "v03"}  # the last three in ADNI2


def read_adni(root: Path, table: Path | None = None) -> list[Candidate]:
    """Every image under `002_S_0295/<description>/<date and time>/<image>`, with its row of the download's CSV.

    Subjects are named sub-002S0295, visits after the CSV (ses-bl, ses-m06), or after the date (ses-20060418) where it
    has none. Where there is a CSV, an MRI without a row and a row without an image are problems; other modalities are
    left out.

    Arguments:
        root: the folder ADNI of the download, or one above it.
        table: the CSV; those around the subjects' folders, or else beside `root`, unless given.

    Raises:
        UserError: if `table` isn't such a CSV.
    """
    places = named_folders(root, PTID)
    rows = _rows([table]) if table else _rows(_tables(root, places)) or _rows(sorted(visible(root.parent, "*.csv")))
    if table and not rows:
        raise UserError(f"{table}: expected the CSV of the download with columns Image Data ID and Subject")
    candidates, seen = [], set()
    for place in places:
        for folder, files in folders(place):
            for path in _images(folder, files):
                image = _image_id(path)
                seen.add(image)
                row = rows.get(image, {})
                if row and not _is_mri(row):
                    continue
                missing = f"{path}: no row for it in the CSV of the download" if rows and not row else ""
                candidates.append(_candidate(place, path, root, row, unreadable(path) or missing))
    above = places[0].parent if places else root
    for image, row in rows.items():
        subject = field(row, SUBJECT)
        if image not in seen and _is_mri(row) and PTID.fullmatch(subject):
            described = re.sub(r"[^A-Za-z0-9-]", "_", row.get("description", ""))
            date = _date(field(row, DATE))
            path = above / subject / described / date / f"I{image}"
            problem = f"I{image} of {subject} ({row.get('description')}, {date}) is in the CSV, but not in the tree"
            candidates.append(_candidate(above / subject, path, root, row, problem))
    return candidates


def visit_label(text: str) -> str:
    """A label of a visit: "m06", "ADNI1/GO Month 6" and "ADNI2 Month 6-New Pt" are all "m06"."""
    if found := re.search(r"month\s*(\d+)|^m0*(\d+)$", text, re.IGNORECASE):
        return f"m{int(found[1] or found[2]):02d}"
    if found := re.search(r"year\s*(\d+)", text, re.IGNORECASE):
        return f"y{found[1]}"
    for word, short in (("screening", "sc"), ("baseline", "bl"), ("init", "init")):
        if word in text.lower():
            return short
    return label(text).lower()


def is_t1w(described: str) -> bool:
    """Whether a series is a T1w by its description, "MP-RAGE REPEAT" or "MT1__GradWarp__N3m"."""
    return bool(T1W.search(described)) and not OTHER.search(described)


def _candidate(place: Path, path: Path, root: Path, row: dict[str, str], problem: str) -> Candidate:
    inside, where = path.relative_to(place).parts, path.relative_to(root).as_posix()
    usual = is_t1w(inside[0] if len(inside) > 1 else path.name)
    date = next(filter(None, map(_date, inside)), "") or _date(field(row, DATE))
    order, known = (date, natural(_image_id(path))), covariates([row], SUBJECT)[0] if row else {}
    session = visit_label(row.get("visit", "")) or date.replace("-", "")
    first = session in BASELINE
    return Candidate(label(place.name), session, path, where, known, order, first, usual, problem=problem)


def _tables(root: Path, places: list[Path]) -> list[Path]:
    """CSVs in `root` and between it and the subjects' folders."""
    around = {root, *(up for p in places for up in (p.parent, p.parent.parent) if up == root or root in up.parents)}
    return sorted(path for folder in around for path in visible(folder, "*.csv"))


def _rows(tables: list[Path]) -> dict[str, dict[str, str]]:
    """Rows of all tables that list images, by image number."""
    rows = {}
    for table in tables:
        columns = header(table)
        if columns & set(IMAGE) and columns & set(SUBJECT):
            rows.update({field(line, IMAGE).upper().lstrip("I"): line for line in read_table(table)})
    return rows


def _images(folder: Path, files: list[Path]) -> list[Path]:
    """NIfTI files, or the folder itself if it holds a DICOM series."""
    images = [p for p in files if is_nifti(p)]
    return images or ([folder] if any(p.suffix.lower() in (".dcm", ".ima") for p in files) else [])


def _image_id(path: Path) -> str:
    """The number at the end of a file's name (..._S13408_I45108.nii), or of its folder's (I45108)."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    found = re.search(r"(?:^|_)I(\d+)$", stem) or re.fullmatch(r"I(\d+)", path.parent.name)
    return found[1] if found else ""


def _is_mri(row: dict[str, str]) -> bool:
    return row.get("modality", "").upper() in ("", "MRI", "MR")


def _date(text: str) -> str:
    """Year-month-day of a date in a table or a folder's name, "" if it is none."""
    if found := re.match(r"(\d{4})-(\d\d)-(\d\d)", text):
        return found[0]
    for form in ("%m/%d/%Y", "%m/%d/%y"):
        try:
            return datetime.strptime(text, form).strftime("%Y-%m-%d")
        except ValueError:
            continue
    return ""


ADNI = Study(
    f"folders like 002_S_0295 (ADNI, {PTID.pattern})",
    lambda root: bool(named_folders(root, PTID)),
    read_adni,
    order=20,
    several="first",  # by time of acquisition, for its protocol repeats the scan
)
