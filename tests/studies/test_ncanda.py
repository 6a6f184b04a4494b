import pytest

from cortexgen.errors import UserError
from cortexgen.studies import find_study

ALL = [
    "sub-NCANDAS00033_ses-baseline",
    "sub-NCANDAS00033_ses-followup1y",
    "sub-NCANDAS00061_ses-baseline",
    "sub-NCANDAS00118_ses-baseline",
    "sub-NCANDAS00118_ses-followup10y",
]


def names(found):
    return [scan.name for scan in found.scans]


def test_a_release_in_parts(ncanda):
    found = find_study(ncanda)
    assert names(found) == ALL and found.problems == {}
    assert all(scan.image.parent.name == "native" for scan in found.scans)
    first, grown = found.scans[0].covariates, found.scans[2].covariates
    assert (first["age"], first["sex"], first["group"], first["site"]) == (15.3, "F", "N", "sri")
    assert grown["age"] == 18.0  # 216 months


def test_a_part_of_a_release_with_a_table_from_elsewhere(ncanda):
    part = ncanda / "NCANDA_SNAPS_8Y_STRUCTURAL_V01"
    bare = find_study(part)
    assert names(bare) == ALL and bare.scans[0].covariates == {}
    table = next(ncanda.rglob("demographics.csv"))
    assert find_study(part / "cases", table=table).scans[1].covariates["age"] == 16.4


@pytest.mark.parametrize(
    "options, chosen",
    [
        ({"visits": ["baseline"]}, [0, 2, 3]),
        ({"visits": "baseline", "groups": ["N"]}, [0, 3]),
        ({"visits": ["followup_1y"]}, [1]),
        ({"where": {"exceeds_bl_drinking": "Y"}}, [2]),
        ({"where": {"age": "16-18"}}, [1, 2]),
        ({"where": {"site": ["sri", "duke"], "sex": "F"}}, [0, 1]),
    ],
)
def test_selections(ncanda, options, chosen):
    assert names(find_study(ncanda, **options)) == [ALL[k] for k in chosen]


def test_another_image_of_a_visit(ncanda):
    (scan,) = find_study(ncanda, image="*/stripped/t1_brain.nii.gz").scans
    assert scan.name == ALL[0] and scan.image.name == "t1_brain.nii.gz"


def test_rows_and_images_without_the_other(ncanda, put):
    cases = ncanda / "NCANDA_SNAPS_8Y_STRUCTURAL_V01" / "cases"
    (cases / "NCANDA_S00061/standard/baseline/structural/native/t1.nii.gz").unlink()
    put(cases, "NCANDA_S00999/standard/baseline/structural/native/t1.nii")
    found = find_study(ncanda)
    assert names(found) == [n for n in ALL if "S00061" not in n]
    assert set(found.problems) == {ALL[2], "sub-NCANDAS00999_ses-baseline"}
    assert "NCANDA_S00061, standard, baseline" in found.problems[ALL[2]]
    assert "no row" in found.problems["sub-NCANDAS00999_ses-baseline"]


def test_an_unknown_column_is_an_error_that_names_those_there_are(ncanda):
    with pytest.raises(UserError, match=r"no column 'height'; there are age, arm, exceeds_bl_drinking, group, mri_"):
        find_study(ncanda, where={"height": 170})
