from pathlib import Path

import pytest

from cortexgen.data.cohort import split_subjects
from cortexgen.errors import UserError
from cortexgen.io import read_volume
from cortexgen.studies import find_study
from cortexgen.studies.adni import is_t1w, visit_label


def images(found):
    return {scan.name: scan.image.parent.name for scan in found.scans}


ALL = {
    "sub-002S0295_ses-m06": "I1003",
    "sub-002S0295_ses-sc": "I1001",
    "sub-002S0413_ses-sc": "I1004",
    "sub-011S0002_ses-sc": "I1005",
    "sub-011S0021_ses-m12": "I1006",
}


@pytest.mark.parametrize("place", ["", "ADNI"])
def test_a_download_with_its_csv(adni, place):
    found = find_study(adni / place)
    assert images(found) == ALL and found.problems == {}
    first = next(s for s in found.scans if s.name == "sub-002S0413_ses-sc")
    assert first.subject == "sub-002S0413" and read_volume(first.image)[0].max() > 0
    wanted = {"age": 76.3, "sex": "F", "group": "MCI", "visit": "sc", "acq_date": "5/2/2006", "modality": "MRI"}
    assert {k: first.covariates[k] for k in wanted} == wanted


def test_of_a_repeated_scan_the_first_is_taken_unless_said_otherwise(adni):
    assert images(find_study(adni, several="last")) == ALL | {"sub-002S0295_ses-sc": "I1002"}
    found = find_study(adni, several="refuse")
    assert "sub-002S0295_ses-sc" not in images(found)
    assert "2 images would have this name" in found.problems["sub-002S0295_ses-sc"]
    assert images(find_study(adni, image=["*repeat*", "*rage*"])) == ALL | {"sub-002S0295_ses-sc": "I1002"}


@pytest.mark.parametrize(
    "options, names",
    [
        ({"groups": ["CN"]}, ["I1003", "I1001", "I1006"]),
        ({"groups": ["CN"], "visits": "baseline"}, ["I1001"]),
        ({"groups": ["CN"], "visits": "first"}, ["I1001", "I1006"]),
        ({"visits": ["m06", "M12"]}, ["I1003", "I1006"]),
        ({"where": {"Sex": "f", "age": ">74"}}, ["I1004", "I1005"]),
        ({"where": {"Acq Date": "10/3/2006"}}, ["I1006"]),
    ],
)
def test_selections(adni, options, names):
    assert list(images(find_study(adni, **options)).values()) == names


def test_scans_of_one_subject_stay_on_one_side_of_a_split(adni):
    scans = find_study(adni).scans
    for seed in range(6):
        sides = split_subjects([s.subject for s in scans], val=2, seed=seed)
        assert len(sides) == 4
        assert len({sides[s.subject] for s in scans if s.name.startswith("sub-002S0295")}) == 1


def test_a_row_without_a_file_and_a_file_without_a_row_are_named(adni, put, adni_path, adni_table):
    row = ("I2001", "941_S_1202", "CN", "M", "78", "bl", "MRI", "MP-RAGE", "2007-01-30")
    pet = ("I2002", "941_S_1202", "CN", "M", "78", "bl", "PET", "FDG", "2007-01-30")
    (adni / "T1w_4_18_2026.csv").write_text(adni_table(row, pet))
    stray = adni_path("I3001", "941_S_1195", "MPRAGE", "2007-02-01")
    put(adni, stray, adni_path("I3002", "941_S_1195", "Axial_PD_T2_FSE", "2007-02-01"))
    found = find_study(adni)
    assert images(found) == ALL
    assert set(found.problems) == {"sub-941S1202_ses-bl", "sub-941S1195_ses-20070201"}
    assert "I2001 of 941_S_1202 (MP-RAGE, 2007-01-30) is in the CSV" in found.problems["sub-941S1202_ses-bl"]
    assert "no row" in found.problems["sub-941S1195_ses-20070201"]
    assert Path(stray).name in found.problems["sub-941S1195_ses-20070201"]
    assert "sub-941S1202_ses-bl" not in find_study(adni, groups=["AD"]).problems


def test_an_image_id_that_is_no_number_is_a_row_with_its_reason(adni, adni_table):
    odd = ("I12AB", "941_S_1202", "CN", "M", "78", "bl", "MRI", "MP-RAGE", "2007-01-30")
    superscript = ("I²", "941_S_1203", "CN", "M", "78", "bl", "MRI", "MP-RAGE", "2007-01-30")
    (adni / "T1w_4_18_2026.csv").write_text(adni_table(odd, superscript), encoding="utf-8")
    found = find_study(adni)
    assert images(found) == ALL and set(found.problems) == {"sub-941S1202_ses-bl", "sub-941S1203_ses-bl"}
    assert "I12AB of 941_S_1202" in found.problems["sub-941S1202_ses-bl"]


def test_a_missing_repeat_does_not_take_the_name_of_the_scan_that_is_there(adni):
    repeat = next(adni.rglob("*_I1002.nii.gz"))
    repeat.unlink()
    found = find_study(adni)
    assert images(found) == ALL
    assert list(found.problems) == ["ADNI/002_S_0295/MP-RAGE_REPEAT/2006-04-18/I1002"]


def test_without_a_csv_visits_are_dates(adni):
    (adni / "T1w_4_18_2026.csv").unlink()
    found = find_study(adni)
    assert [s.name for s in found.scans][:2] == ["sub-002S0295_ses-20060418", "sub-002S0295_ses-20061102"]
    assert found.scans[0].covariates == {}
    with pytest.raises(UserError, match=r"where: no column 'group'; there are none: no table was found"):
        find_study(adni, groups=["CN"])
    with pytest.raises(UserError, match=r"visits: no visit 'baseline'; there are 20060418 .*first for the earliest"):
        find_study(adni, visits="baseline")
    assert len(find_study(adni, visits="first").scans) == 4


def test_an_older_download_has_series_as_folders_and_the_csv_of_a_search(adni, put):
    (adni / "T1w_4_18_2026.csv").write_text(
        "Subject ID,Project,Sex,Research Group,Visit,Study Date,Age,Modality,Description,Image ID\n"
        "002_S_0559,ADNI,M,Control,ADNI1/GO Month 6,6/27/2006,79.1,MRI,MPR-R; GradWarp; N3,45126\n"
    )
    for folder in adni.glob("ADNI/*"):
        folder.rename(adni / folder.name)
    (adni / "ADNI").rmdir()
    place = "002_S_0559/MPR-R__GradWarp__N3/2006-06-27_18_28_33.0/S15922"
    put(adni, f"{place}/ADNI_002_S_0559_MR_MPR-R__GradWarp__N3_Br_20070319121214158_S15922_I45126.nii.gz")
    found = find_study(adni, groups=["Control"])
    (scan,) = found.scans
    assert scan.name == "sub-002S0559_ses-m06" and scan.covariates["age"] == 79.1
    assert len(found.problems) == 6  # files that this table doesn't list


def test_a_wrong_table_and_no_t1w_are_errors(adni, tmp_path):
    (tmp_path / "other.csv").write_text("RID,VISCODE\n1,bl\n")
    with pytest.raises(UserError, match=r"other\.csv: expected the CSV of the download"):
        find_study(adni, table=tmp_path / "other.csv")
    with pytest.raises(UserError, match=r"image: none of 6 images fits '\*SPGR\*' \(ADNI/002_S_0295/MP-RAGE/"):
        find_study(adni, image="*SPGR*")
    with pytest.raises(UserError, match=r"where: nobody has group \['SMC'\]; there are CN \(4\), MCI \(1\), AD \(1\)"):
        find_study(adni, groups=["SMC"])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("sc", "sc"),
        ("ADNI Screening", "sc"),
        ("ADNI2 Baseline-New Pt", "bl"),
        ("ADNI1/GO Month 6", "m06"),
        ("m6", "m06"),
        ("M120", "m120"),
        ("ADNI2 Year 1 Visit", "y1"),
        ("ADNI3 Initial Visit-Cont Pt", "init"),
        ("4_init", "init"),
        ("v04", "v04"),
        ("", ""),
    ],
)
def test_visits_get_short_labels(text, expected):
    assert visit_label(text) == expected


@pytest.mark.parametrize(
    "described",
    [
        "MP-RAGE",
        "MP-RAGE_REPEAT",
        "MPRAGE_SENSE2",
        "Accelerated_Sag_IR-FSPGR",
        "MPR__GradWarp__B1_Correction__N3__Scaled_2",
        "MPR-R____N3__Scaled",
        "MT1__N3m",
        "Sagittal_3D_Accelerated_MPRAGE",
    ],
)
def test_descriptions_of_t1w(described):
    assert is_t1w(described)


@pytest.mark.parametrize(
    "described",
    ["Axial_PD_T2_FSE", "Cal_8HRBRAIN", "B1-Calibration_Body", "3_Plane_Localizer", "MPR__Mask", "AAHScout_MPR_cor"],
)
def test_descriptions_of_what_is_none(described):
    assert not is_t1w(described)
