import os
import re
from pathlib import Path

import pytest

from cortexgen.data.cohort import Scan, find_scans, read_cohort, split_subjects, write_participants
from cortexgen.errors import UserError
from cortexgen.studies.folder import read_folder

NAMES = [f"sub-{k:02d}" for k in range(1, 41)]


def touch(root, *paths):
    for path in paths:
        Path(root, path).parent.mkdir(parents=True, exist_ok=True)
        Path(root, path).touch()


def side(sides, wanted):
    return {s for s, found in sides.items() if found == wanted}


def test_scans_with_and_without_sessions_come_sorted_with_their_rows(tmp_path):
    touch(
        tmp_path,
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_dseg.nii.gz",
        "sub-02/func/sub-02_bold.nii.gz",
        "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-03/anat/sub-03_dseg.nii.gz",
        "derivatives/sub-04/anat/sub-04_T1w.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t30\tF\nsub-09\t50\tM\n")
    scans = read_cohort(tmp_path)
    assert [s.name for s in scans] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]
    assert [s.subject for s in scans] == ["sub-01", "sub-01", "sub-02"]
    assert scans[0].image == tmp_path / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"
    assert scans[0].labels is None and scans[2].labels == tmp_path / "sub-02/anat/sub-02_dseg.nii.gz"
    assert scans[1].covariates == {"age": 30.0, "sex": "F"} and scans[2].covariates == {}


@pytest.mark.parametrize("extra", ["sub-01/anat/sub-01_desc-warped_T1w.nii.gz", "sub-01/anat/sub-01_run-2_dseg.nii"])
def test_a_pattern_that_fits_two_files_is_an_error_until_it_fits_one(tmp_path, extra):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_dseg.nii.gz", extra)
    with pytest.raises(UserError, match=rf"sub-01.anat: 2 files fit .*{Path(extra).name}"):
        read_cohort(tmp_path)
    (scan,) = read_cohort(tmp_path, "sub-??_T1w.nii*", "sub-??_dseg.nii*")
    assert scan.image.name == "sub-01_T1w.nii.gz"


def test_a_folder_without_images_and_no_folder_are_errors_that_name_it(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        read_cohort(tmp_path / "nowhere")
    touch(tmp_path, "sub-01/anat/sub-01_T2w.nii.gz")
    with pytest.raises(UserError, match=rf"{tmp_path}: no image .*_T1w"):
        read_cohort(tmp_path)


def test_a_table_of_participants_without_their_names_is_an_error(tmp_path):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text("subject\tage\nsub-01\t30\n")
    with pytest.raises(UserError, match=r"participants\.tsv: expected a column participant_id, found subject, age"):
        read_cohort(tmp_path)


@pytest.mark.parametrize("val, test, sizes", [(0.1, 0.25, (26, 4, 10)), (5, 2, (33, 5, 2)), (0, 0, (40, 0, 0))])
def test_split_by_fraction_or_number(val, test, sizes):
    sides = split_subjects(NAMES, val=val, test=test)
    assert tuple(len(side(sides, s)) for s in ("train", "val", "test")) == sizes
    assert set(sides) == set(NAMES)


def test_a_small_fraction_still_takes_somebody():
    assert len(side(split_subjects(NAMES[:4], val=0.1), "val")) == 1


def test_split_depends_on_the_set_of_subjects_alone():
    sides = split_subjects(NAMES, val=6, test=6)
    assert split_subjects(NAMES[::-1] + NAMES[5:9], val=6, test=6) == sides  # order, sessions
    assert split_subjects(NAMES, val=6, test=6, seed=1) != sides


def test_new_subjects_move_few_old_ones():
    grown = split_subjects([*NAMES, "sub-41"], val=6, test=0)
    moved = [s for s, was in split_subjects(NAMES, val=6, test=0).items() if grown[s] != was]
    assert len(moved) <= 1


def test_explicit_subjects_with_and_without_prefix():
    sides = split_subjects(NAMES, val_subjects=["sub-03", "07"], test_subjects=["40"])
    assert side(sides, "val") == {"sub-03", "sub-07"} and side(sides, "test") == {"sub-40"}
    sides = split_subjects(NAMES, val=4, test_subjects=["40"])
    assert side(sides, "test") == {"sub-40"} and len(side(sides, "val")) == 4
    sides = split_subjects(NAMES, val_subjects=["40"], test=39 / 40 - 0.1)
    assert side(sides, "val") == {"sub-40"}


@pytest.mark.parametrize(
    "options, text",
    [
        ({"val_subjects": ["01", "02"], "test_subjects": ["sub-02"]}, "sub-02: in the validation and in the test set"),
        ({"val_subjects": ["99"]}, "val_subjects: sub-99 not in the cohort of 40"),
        ({"test_subjects": ["sub-98"]}, "test_subjects: sub-98 not in"),
        ({"val": 40}, "no subject is left for training"),
        ({"val": 30, "test": 10}, "no subject is left for training"),
        ({"val": 2.5}, "val: expected a fraction below 1 or a whole number"),
        ({"test": -0.1}, "test: expected a fraction"),
    ],
)
def test_impossible_splits_are_errors(options, text):
    with pytest.raises(UserError, match=text):
        split_subjects(NAMES, **options)


def test_one_file_a_folder_or_a_data_set(tmp_path, cohort):
    (tmp_path / "sub-01_ses-2_T1w.nii.gz").touch()
    (tmp_path / "old brain.nii").touch()
    assert [(s.name, s.subject) for s in find_scans(tmp_path)] == [
        ("sub-oldbrain", "sub-oldbrain"),
        ("sub-01_ses-2", "sub-01"),
    ]
    assert find_scans(tmp_path / "old brain.nii")[0].image == tmp_path / "old brain.nii"
    assert [s.name for s in find_scans(cohort)] == [s.name for s in read_cohort(cohort)]
    with pytest.raises(UserError, match="no such file"):
        find_scans(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no NIfTI file"):
        find_scans(tmp_path / "empty")


def test_what_is_wrong_with_one_scan_of_a_data_set_is_its_problem(tmp_path):
    touch(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/._sub-01_T1w.nii.gz",
        "sub-02/anat/sub-02_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_run-2_T1w.nii.gz",
        "sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz",
        "sub-03/ses-1/anat/sub-03_ses-1_T1w.nii",
        "sub-03/ses-2/anat/sub-03_ses-2_T1w.NII.GZ",
        "sub-04/anat/sub-04_T1w.nii.gz/x",
        "sub-05/anat/sub-05_T1w.nii.gz",
        "sub-05/anat/sub-05_dseg.nii.gz",
        "sub-05/anat/sub-05_desc-aparc_dseg.nii.gz",
    )
    Path(tmp_path, "sub-06/anat").mkdir(parents=True)
    Path(tmp_path, "sub-06/anat/sub-06_T1w.nii.gz").symlink_to(tmp_path / "nothing")
    scans = {scan.name: scan for scan in read_cohort(tmp_path)}
    wrong = {
        "sub-02": "2 files fit .*run-1.*run-2",
        "sub-03_ses-1": "2 files fit",
        "sub-04": "a folder or device",
        "sub-05": "2 files fit .*dseg.* give a pattern",
        "sub-06": "a link to nothing",
    }
    assert [name for name, scan in scans.items() if not scan.problem] == ["sub-01", "sub-03_ses-2"]
    for name, expected in wrong.items():
        assert re.search(expected, scans[name].problem) and not scans[name].image.exists()
        with pytest.raises(UserError, match=expected):
            scans[name].check()


def test_files_of_a_folder_are_named_after_themselves_and_twins_are_a_problem(tmp_path):
    os.makedirs(tmp_path / "sub-folder.nii.gz")
    for name in ("a-b.nii", "ab.nii", "脳.nii", "肝.nii", "Twin.NII.GZ", "twin.nii", "Müller.nii", ".hidden.nii",
                 "x.nii", "x.nii.gz"):  # fmt: skip
        (tmp_path / name).touch()
    (tmp_path / os.fsdecode(b"\xff.nii")).touch()
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nothing")
    scans = {scan.name: scan for scan in find_scans(tmp_path)}
    wrong = {"sub-ab": "2 files would be called sub-ab .a-b.nii, ab.nii.: rename", "sub-x": "2 files would be called"}
    wrong |= {"sub-gone": "a link to nothing", "sub-folder": "a folder or device"}
    assert {name for name, scan in scans.items() if scan.problem} == set(wrong)
    assert all(re.search(expected, scans[name].problem) for name, expected in wrong.items())
    good = set(scans) - set(wrong)
    assert {"sub-Twin", "sub-twin", "sub-Muller"} < good and len(good) == 6
    assert all(re.fullmatch("sub-[A-Za-z0-9]+", name) for name in good)
    assert set(scans) == {candidate.name for candidate in read_folder(tmp_path)}  # as `preprocess` names them


def test_nothing_that_can_be_used_is_an_error_that_says_why(tmp_path):
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"none of its 1 image\(s\) can be used; .*gone.nii: a link to nothing"):
        find_scans(tmp_path)
    with pytest.raises(UserError, match=r"gone\.nii: a link to nothing"):
        find_scans(tmp_path / "gone.nii")


def test_participants_and_their_sessions_come_back_as_they_were_written(tmp_path):
    scans = [
        Scan("sub-01_ses-a", "sub-01", Path("a"), covariates={"sex": "F", "age": 30.0, "group": "CN"}),
        Scan("sub-01_ses-b", "sub-01", Path("b"), covariates={"sex": "F", "age": 31.5, "group": "CN"}),
        Scan("sub-02", "sub-02", Path("c"), covariates={"sex": "M", "age": 50.0, "group": None}),
    ]
    for scan in scans:
        touch(tmp_path, f"{scan.name.replace('_', '/')}/anat/{scan.name}_T1w.nii.gz")
    write_participants(tmp_path, scans)
    assert [s.covariates for s in read_cohort(tmp_path)] == [s.covariates for s in scans]
    table = (tmp_path / "participants.tsv").read_text().splitlines()
    assert table == ["participant_id\tsex\tgroup\tage", "sub-01\tF\tCN\tn/a", "sub-02\tM\tn/a\t50"]
