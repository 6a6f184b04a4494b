import os

import pytest

from cortexgen.errors import UserError
from cortexgen.io import read_volume
from cortexgen.studies import find_study


def names(found):
    return [scan.name for scan in found.scans]


def test_a_folder_of_files_named_after_themselves(tmp_path, put):
    put(tmp_path, "sub-01_ses-2_T1w.nii.gz", "old brain.nii.gz", "Müller.nii.gz", "脳.nii.gz", "._x.nii.gz")
    found = find_study(tmp_path)
    assert {"sub-01_ses-2", "sub-Muller", "sub-oldbrain"} < set(names(found)) and len(found.scans) == 4
    assert all(name.isascii() and len(name) > 4 for name in names(found))
    assert all(read_volume(scan.image)[0].max() > 0 for scan in found.scans)
    assert names(find_study(tmp_path / "old brain.nii.gz")) == ["sub-oldbrain"]


def test_two_files_of_one_name_are_a_problem_and_others_go_on(tmp_path, put):
    put(tmp_path, "a 1.nii.gz", "a_1.nii.gz", "b.nii.gz")
    found = find_study(tmp_path)
    assert names(found) == ["sub-b"]
    assert "2 images would have this name (a 1.nii.gz, a_1.nii.gz)" in found.problems["sub-a1"]


def test_hostile_names_are_scans_or_problems(tmp_path, put):
    put(tmp_path, "ok.nii.gz", os.fsdecode(b"\xff.nii.gz"), "x.nii.gz", "x.nii", "y" * 240 + ".nii.gz", "BIG.NII.GZ")
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nothing")
    found = find_study(tmp_path)
    assert {"sub-ok", "sub-BIG"} < set(names(found)) and len(found.scans) == 3
    expected = {
        "sub-x": "2 images",
        "sub-" + "y" * 240: "244 characters",
        "sub-folder": "a folder",
        "sub-gone": "a link",
    }
    assert found.problems.keys() == expected.keys()
    assert all(text in found.problems[name] for name, text in expected.items())


def test_a_folder_with_covariates(tmp_path, put):
    put(tmp_path, "s1.nii.gz", "s2.nii.gz")
    (tmp_path / "participants.tsv").write_text("participant_id\tage\ns1\t20\nsub-s3\t30\n")
    found = find_study(tmp_path)
    assert names(found) == ["sub-s1"] and found.scans[0].covariates == {"age": 20.0}
    assert set(found.problems) == {"sub-s2", "sub-s3"}


def test_a_table_of_paths_relative_to_it(tmp_path, put):
    put(tmp_path, "scans/x1.nii.gz", "scans/ü/x2.nii.gz", "elsewhere/y.nii.gz")
    table = tmp_path / "lists" / "scans.csv"
    table.parent.mkdir()
    table.write_text(
        "Path,Subject,Session,Age,Sex\n"
        "../scans/x1.nii.gz,0001,bl,30,female\n"
        f"{tmp_path}/scans/ü/x2.nii.gz,0001,m12,31,female\n"
        "../elsewhere/y.nii.gz,,,50,M\n"
        "../scans/x9.nii.gz,0009,,60,M\n"
        ",0010,,70,F\n"
        "../scans/x1.nii.gz,0011,,33,F\n"
        "../elsewhere/y.nii.gz,0011,,33,F\n",
        encoding="utf-8",
    )
    found = find_study(table)
    assert names(found) == ["sub-0001_ses-bl", "sub-0001_ses-m12", "sub-y"]
    assert found.scans[0].covariates == {"age": 30.0, "sex": "F"} and found.scans[1].subject == "sub-0001"
    assert all(read_volume(scan.image)[0].max() > 0 for scan in found.scans)
    assert set(found.problems) == {"sub-0009", "sub-0010", "sub-0011"}
    assert "no such file" in found.problems["sub-0009"] and "line 6 has no path" in found.problems["sub-0010"]
    assert "2 images would have this name" in found.problems["sub-0011"]
    assert names(find_study(tmp_path / "scans", study="folder", table=table, where={"sex": "M"})) == ["sub-y"]


@pytest.mark.parametrize(
    "wanted, ages",
    [
        ("20-30", [20, 30]),
        ("-5-20", [20]),
        (">30", [40]),
        ("<=30", [20, 30]),
        (30, [30]),
        ("30.0", [30]),
        (["<25", ">35"], [20, 40]),
    ],
)
def test_where_compares_numbers(tmp_path, put, wanted, ages):
    put(tmp_path, "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.nii.gz")
    (tmp_path / "t.tsv").write_text("path\tage\na.nii.gz\t20\nb.nii.gz\t30\nc.nii.gz\t40\nd.nii.gz\tn/a\n")
    assert [s.covariates["age"] for s in find_study(tmp_path / "t.tsv", where={"age": wanted}).scans] == ages


def test_errors_say_what_was_looked_for(tmp_path, put):
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        find_study(tmp_path / "nowhere")
    (tmp_path / "data" / "notes").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no study in this folder; looked for sub-\* \(BIDS\).*NCANDA_S00033.*\.nii"):
        find_study(tmp_path / "data")
    with pytest.raises(UserError, match=r"data: no T1w image found \(looked for the layout of adni\)"):
        find_study(tmp_path / "data", study="adni")
    (tmp_path / "a.csv").write_text("file path,age\nx,3\n")
    with pytest.raises(UserError, match=r"a\.csv: expected a column path, found file_path, age"):
        find_study(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("path,age\nx.nii,3\n")
    with pytest.raises(UserError, match=r"b\.csv: none of 1 scans can be used; sub-x: .*x\.nii: no such file"):
        find_study(tmp_path / "b.csv")
    with pytest.raises(UserError, match="expected the folder of a study"):
        find_study(tmp_path / "b.csv", study="bids")
    (tmp_path / "c.doc").touch()
    with pytest.raises(UserError, match="expected a folder, a NIfTI file, or a table"):
        find_study(tmp_path / "c.doc")
    (tmp_path / "d.csv").write_bytes(b"path,age\n\xff.nii,3\n")
    with pytest.raises(UserError, match="UTF-8"):
        find_study(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text("path,age\n")
    with pytest.raises(UserError, match="no rows"):
        find_study(tmp_path / "e.csv")
