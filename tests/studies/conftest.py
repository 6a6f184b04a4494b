"""Small made trees of studies, with simulated brains in them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cortexgen.data.cohort import read_cohort

ADNI_HEADER = (
    '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date","Format",'
    '"Downloaded"\n'
)
ADNI_ROWS = [  # image, subject, group, sex, age, visit, modality, description, date
    ("I1001", "002_S_0295", "CN", "M", "84.8", "sc", "MRI", "MP-RAGE", "2006-04-18"),
    ("I1002", "002_S_0295", "CN", "M", "84.8", "sc", "MRI", "MP-RAGE REPEAT", "2006-04-18"),
    ("I1003", "002_S_0295", "CN", "M", "85.4", "m06", "MRI", "MP-RAGE", "2006-11-02"),
    ("I1004", "002_S_0413", "MCI", "F", "76.3", "sc", "MRI", "MP-RAGE", "2006-05-02"),
    ("I1005", "011_S_0002", "AD", "F", "74.2", "sc", "MRI", "MPRAGE", "2006-05-12"),
    ("I1006", "011_S_0021", "CN", "F", "72.6", "m12", "MRI", "MPRAGE", "2006-10-03"),
]


@pytest.fixture(scope="session")
def brains(cohort: Path) -> list[Path]:
    """Images of simulated brains."""
    return [scan.image for scan in read_cohort(cohort)]


@pytest.fixture(scope="session")
def put(brains: Sequence[Path]) -> Callable[..., None]:
    """Copies brains to places: `put(root, "a/b.nii.gz", ...)`."""

    def place(root: Path, *paths: str) -> None:
        for k, path in enumerate(paths):
            Path(root, path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(brains[k % len(brains)], Path(root, path))

    return place


@pytest.fixture(scope="session")
def adni_path() -> Callable[..., str]:
    """Where an image lies in a download."""
    return _adni_path


@pytest.fixture(scope="session")
def adni_table() -> Callable[..., str]:
    """The text of a download's CSV, with some rows more."""
    return _adni_table


def _adni_path(image: str, subject: str, description: str, date: str) -> str:
    folder = description.replace(" ", "_")
    name = f"ADNI_{subject}_MR_{folder}_br_raw_20060418193713091_1_S1{image[1:]}_{image}.nii.gz"
    return f"ADNI/{subject}/{folder}/{date}_08_20_30.0/{image}/{name}"


def _adni_table(*more: tuple[str, ...]) -> str:
    lines = []
    for image, subject, group, sex, age, visit, modality, description, date in [*ADNI_ROWS, *more]:
        year, month, day = date.split("-")
        cells = (image, subject, group, sex, age, visit, modality, description, "Original")
        cells = (*cells, f"{int(month)}/{int(day)}/{year}", "DCM", "")
        lines.append(",".join(f'"{c}"' for c in cells) + "\n")
    return ADNI_HEADER + "".join(lines)


@pytest.fixture
def adni(tmp_path: Path, put: Callable[..., None]) -> Path:
    """Four subjects of ADNI, one with a repeated scan and a second visit, and the CSV of the download."""
    root = tmp_path / "ADNI1 1.5T"
    put(root, *(_adni_path(row[0], row[1], row[7], row[8]) for row in ADNI_ROWS))
    (root / "T1w_4_18_2026.csv").write_text(_adni_table(), encoding="utf-8")
    return root


@pytest.fixture
def ncanda(tmp_path: Path, put: Callable[..., None]) -> Path:
    """Three subjects of NCANDA at two visits, in the parts of a release."""
    root = tmp_path / "ncanda"
    cases = "NCANDA_SNAPS_8Y_STRUCTURAL_V01/cases"
    t1 = "structural/native/t1.nii.gz"
    put(
        root,
        f"{cases}/NCANDA_S00033/standard/baseline/{t1}",
        f"{cases}/NCANDA_S00033/standard/baseline/structural/stripped/t1_brain.nii.gz",
        f"{cases}/NCANDA_S00033/standard/followup_1y/{t1}",
        f"{cases}/NCANDA_S00061/standard/baseline/{t1}",
        f"{cases}/NCANDA_S00118/standard/baseline/{t1}",
        f"{cases}/NCANDA_S00118/standard/followup_10y/{t1}",
    )
    table = root / "NCANDA_SNAPS_8Y_REDCAP_V03" / "summaries" / "redcap" / "demographics.csv"
    table.parent.mkdir(parents=True)
    table.write_text(
        "subject,arm,visit,site,sex,visit_age,mri_structural_age,exceeds_bl_drinking,participant_id,scanner\n"
        "NCANDA_S00033,standard,baseline,sri,F,15.3,15.3,N,B-00017-F-7,ge\n"
        "NCANDA_S00033,standard,followup_6m,sri,F,15.8,,N,B-00017-F-7,\n"
        "NCANDA_S00033,standard,followup_1y,sri,F,16.4,16.4,N,B-00017-F-7,ge\n"
        "NCANDA_S00061,standard,baseline,duke,M,216,216,Y,D-00155-M-0,siemens\n"
        "NCANDA_S00118,standard,baseline,ucsd,M,13.1,13.1,N,E-00021-M-1,ge\n"
        "NCANDA_S00118,standard,followup_10y,ucsd,M,23.2,23.2,N,E-00021-M-1,ge\n"
    )
    return root
