import pytest

from cortexgen.errors import UserError
from cortexgen.io import read_volume
from cortexgen.studies import find_study


def names(found):
    return [scan.name for scan in found.scans]


@pytest.fixture
def root(tmp_path, put):
    """Three subjects; the first with two sessions, the last with two runs."""
    root = tmp_path / "ds 000001 ü"
    put(
        root,
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-03/anat/sub-03_run-1_T1w.nii.gz",
        "sub-03/anat/sub-03_run-2_T1w.nii.gz",
        "sub-03/anat/sub-03_T2w.nii.gz",
        "derivatives/x/sub-09/anat/sub-09_T1w.nii.gz",
    )
    (root / "participants.tsv").write_text(
        "participant_id\tAge\tgender\tDiagnosis\tBMI\nsub-01\t70\tfemale\tCN\t21\n"
        "sub-02\t89+\tM\tAD\tn/a\nsub-03\t060Y\tMale\tCN\t25.5\n"
    )
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\nses-1\t70.2\nses-2\t72.9\n")
    return root


def test_sessions_with_covariates_of_subject_and_session(root):
    found = find_study(root, several="first")
    assert names(found) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02", "sub-03"] and found.problems == {}
    common = {"sex": "F", "gender": "female", "group": "CN", "diagnosis": "CN", "bmi": 21.0}
    assert [s.covariates for s in found.scans[:2]] == [common | {"age": 70.2}, common | {"age": 72.9}]
    assert [s.covariates["age"] for s in found.scans[2:]] == [89.0, 60.0]
    assert found.scans[2].covariates["bmi"] is None and found.scans[3].covariates["sex"] == "M"
    assert read_volume(found.scans[2].image)[0].max() > 0  # a path that isn't ASCII


def test_one_of_several_runs_is_chosen_or_a_problem(root):
    found = find_study(root)
    assert names(found) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    assert "2 images would have this name (sub-03/anat/sub-03_run-1_T1w.nii.gz, " in found.problems["sub-03"]
    assert find_study(root, several="first").scans[-1].image.name == "sub-03_run-1_T1w.nii.gz"
    assert find_study(root, several="last").scans[-1].image.name == "sub-03_run-2_T1w.nii.gz"
    found = find_study(root, image=["*run-2*", "*"])
    assert len(found.scans) == 4 and found.scans[-1].image.name == "sub-03_run-2_T1w.nii.gz"
    assert names(find_study(root, image="*run-2*")) == ["sub-03"]


def test_visits(root):
    assert names(find_study(root, visits=["ses-2"])) == ["sub-01_ses-2"]
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\nses-1\t72.9\nses-2\t70.2\n")
    assert names(find_study(root, visits="first")) == ["sub-01_ses-2", "sub-02"]
    with pytest.raises(UserError, match=r"visits: no visit '7'; there are"):
        find_study(root, visits="7")


def test_rows_and_images_without_the_other_and_repeated_rows(root, put):
    put(root, "sub-04/anat/sub-04_T1w.nii.gz", "sub-05/anat/sub-05_T1w.nii.gz")
    with open(root / "participants.tsv", "a") as table:
        table.write("sub-05\t50\tF\tCN\t20\nsub-05\t60\tM\tAD\t20\nsub-06\t50\tF\tCN\t20\n")
    found = find_study(root, several="first")
    assert len(found.scans) == 4 and set(found.problems) == {"sub-04", "sub-05", "sub-06"}
    assert "has no row for sub-04" in found.problems["sub-04"]
    assert "has 2 rows for sub-05" in found.problems["sub-05"]
    assert "has a row for sub-06, but there is no T1w" in found.problems["sub-06"]
    assert "sub-06" not in find_study(root, groups=["AD"]).problems


def test_links_are_followed_and_a_broken_one_is_a_problem(root, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "sub-01").symlink_to(root / "sub-01", target_is_directory=True)
    (linked / "sub-02" / "anat").mkdir(parents=True)
    (linked / "sub-02" / "anat" / "sub-02_T1w.nii.gz").symlink_to(tmp_path / ".git" / "annex" / "x.nii.gz")
    found = find_study(linked)
    assert names(found) == ["sub-01_ses-1", "sub-01_ses-2"]
    assert "a link to nothing" in found.problems["sub-02"]


def test_a_data_set_without_tables_and_a_table_without_subjects(root, tmp_path):
    (tmp_path / "ages.csv").write_text("id;age\n01;33\n02;44\n03;55\n", encoding="utf-8-sig")
    found = find_study(root, table=tmp_path / "ages.csv", where={"age": [44, 55]}, several="first")
    assert names(found) == ["sub-02", "sub-03"]
    (root / "participants.tsv").unlink()
    assert find_study(root).scans[-1].covariates == {}
    (tmp_path / "wrong.csv").write_text("age,sex\n33,F\n")
    with pytest.raises(UserError, match=r"wrong\.csv: expected a column participant_id, found age, sex"):
        find_study(root, table=tmp_path / "wrong.csv")
