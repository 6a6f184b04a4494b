"""Names and side files of BIDS derivatives."""

import csv
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cortexgen.errors import UserError
from cortexgen.io.atomic import write_json, write_text
from cortexgen.io.paths import SCAN, check_scan_name, folder_within, scan_name, within
from cortexgen.io.tables import COHORT, NUMBER

Row = dict[str, Any]
MISSING = "n/a"
STRIPPED = {"SkullStripped": True}  # of every T1w that is written, in its sidecar
BREAKS = r"\s*[\x00-\x1f\x85\u2028\u2029]\s*"  # what would end a cell or a line, to some reader
# What BIDS 1.9 has no name for.
IGNORE = """\
**/*_xfm.*
**/*_field.*
**/*_map.*
**/*_metrics.json
**/*_desc-continuous_T1w.*
**/*_T1w.png
dseg.ctbl
dseg.label
dseg.lut
dseg_LUT.txt
*.html
metrics.json
manifest.json
preprocess.tsv
registration.tsv
registration.json
volumes.tsv
**/figures
tpl-*
truth
"""


def anat(root: Path, scan: str) -> Path:
    """The anat folder of a scan "sub-01" or "sub-01_ses-1"; raises as `derivative`."""
    return folder_within(root, *check_scan_name(scan).split("_"), "anat")


def transform(root: Path, scan: str, origin: str, target: str) -> Path:
    """The displacement field that warps an image of `origin` onto `target`; raises as `derivative`."""
    return derivative(root, scan, "xfm", **{"from": origin, "to": target, "mode": "image"})


def derivative(root: Path, scan: str, suffix: str, **entities: str) -> Path:
    """`sub-01_space-X_desc-Y_suffix.nii.gz` in the scan's anat folder, entities in the order given.

    Raises:
        UserError: if the scan has no BIDS name, or the path would leave `root`.
    """
    name = "_".join([scan, *(f"{key}-{value}" for key, value in entities.items()), suffix])
    return within(root, *check_scan_name(scan).split("_"), "anat", f"{name}.nii.gz")


def template_file(root: Path, name: str, spacing: float, suffix: str) -> Path:
    """A template's image or dseg with voxels of `spacing` millimetres, `tpl-X/tpl-X_res-1p5_T1w.nii.gz`."""
    resolution = f"{spacing:.4g}".replace(".", "p")
    return within(root, f"tpl-{name}", f"tpl-{name}_res-{resolution}_{suffix}.nii.gz")


def scan_folders(root: Path) -> dict[Path, tuple[str, str]]:
    """The anat folders of a data set, sorted: what the scan of each is called, and why it can't be used, "" if it can.

    A folder whose name is no BIDS label is called after the letters and digits in it, with a warning, unless another
    one is called so.
    """
    found = sorted([*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")])
    parts = {folder: folder.parent.relative_to(root).parts for folder in found}
    named = {folder: (scan_name(names), "") for folder, names in parts.items()}
    taken = {name for folder, (name, _) in named.items() if name == "_".join(parts[folder])}
    for folder, (name, _) in named.items():
        if not SCAN.fullmatch(name):
            named[folder] = name, f"{folder.parent}: no letter or digit to call it by"
        elif name == "_".join(parts[folder]):
            continue
        elif name in taken:
            named[folder] = name, f"{folder.parent}: would be called {name}, as another folder is; rename it"
        else:
            taken.add(name)
            warnings.warn(f"{folder.parent}: called {name}, for labels are letters and digits", stacklevel=3)
    return named


def sidecar(path: Path) -> Path:
    """The JSON file beside an image."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def source_hash(path: Path) -> str:
    """The sha256 of a file that results are made of.

    Raises:
        UserError: if it is missing, no file, or can't be read.
    """
    try:
        if not Path(path).is_file():  # reading a pipe would never end
            raise UserError(f"{path}: no such file")
        return sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def describe_dataset(root: Path, name: str, generated_by: Mapping[str, Any]) -> None:
    """Write `.bidsignore` and, last, `dataset_description.json`, by which `cortexgen.io.output` knows the folder."""
    write_text(Path(root, ".bidsignore"), IGNORE)
    write_json(
        Path(root, "dataset_description.json"),
        {
            "Name": name,
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "cortexgen", "Version": version("cortexgen"), **generated_by}],
        },
    )


def generated_by(root: Path) -> dict[str, Any] | None:
    """The first entry of GeneratedBy in a folder's dataset_description.json; None where there is no such file.

    Raises:
        UserError: if the file can't be read.
    """
    path = Path(root, "dataset_description.json")
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("GeneratedBy") or [{}]
        return dict(entries[0])
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise UserError(f"{path}: not a BIDS description that can be read ({error})") from None


def write_tsv(path: Path, rows: Iterable[Mapping[str, Any]], exact: bool = False) -> None:
    """Write rows as a tab-separated table atomically, a line each.

    Columns come in order of appearance, missing values as n/a; tabs and line breaks in a text become a space.

    Arguments:
        exact: write numbers with every digit they have instead of six.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow([_cell(name) for name in columns])
    for row in rows:
        writer.writerow([_cell(row.get(key), exact) for key in columns])
    write_text(path, text.getvalue())


def _cell(value: Any, exact: bool = False) -> str:
    if isinstance(value, float):
        return repr(float(value)).removesuffix(".0") if exact else f"{value:.6g}"
    return MISSING if value is None else re.sub(BREAKS, " ", str(value))


def _value(column: str, text: str | None) -> str | float | None:
    if column == "participant_id":
        return text
    if text is None or text.strip() in ("", MISSING, "NA", "nan"):
        return None
    return float(text) if column != COHORT and re.fullmatch(NUMBER, text.strip()) else text


def read_tsv(path: Path) -> list[Row]:
    """Rows of a tab-separated table, numbers as float, n/a as None.

    Raises:
        UserError: if the file is missing or empty.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = list(csv.DictReader(file, delimiter="\t"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: expected a table in UTF-8 text ({error})") from None
    rows = [{k: _value(k, v) for k, v in row.items() if k} for row in table]
    if not rows:
        raise UserError(f"{path}: the table has no rows")
    return rows
