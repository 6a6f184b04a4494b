"""Names of strangers stay names, and nothing is written or removed outside of the folder that was given."""

import os
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import Scan, find_scans, read_cohort, write_participants
from cortexgen.errors import UserError
from cortexgen.evaluation.store import Store
from cortexgen.figures import sheet_path
from cortexgen.io import write_text
from cortexgen.io.atomic import remove_leftovers, temporary_name
from cortexgen.io.bids import anat, derivative, scan_folders, transform
from cortexgen.io.paths import is_file_name, label, scan_name, visible, within
from cortexgen.preprocess import Normalize, Pipeline, Resample
from cortexgen.preprocess.pipeline import preprocess_scan
from cortexgen.runner.cohort import HERE
from cortexgen.studies import find_study

EVIL = ["sub-1_.._.._evil", "sub-..", "sub-01_ses-1_.._x", "sub-a/b", "../sub-01", "", "sub-01\0", "sub-", "sub-é"]


def tree(root):
    return {p.relative_to(root).as_posix() for p in root.rglob("*")}


@pytest.mark.parametrize("name", EVIL)
def test_no_path_is_made_of_a_name_that_is_none_of_bids(name, tmp_path):
    for make in (lambda: anat(tmp_path, name), lambda: derivative(tmp_path, name, "T1w")):
        with pytest.raises(UserError, match="expected a name like sub-01"):
            make()
    with pytest.raises(UserError, match="not a name"):
        transform(tmp_path, "sub-01", "../../..", "T1w")
    with pytest.raises(UserError, match="not a name"):
        derivative(tmp_path, "sub-01", "T1w", space="a/../../b")
    with pytest.raises(UserError, match="not a name"):
        sheet_path(tmp_path, "sub-01/../..")


def test_a_link_that_leads_outside_is_refused_and_one_inside_is_not(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for folder in (out / "sub-02", elsewhere):
        folder.mkdir(parents=True)
    (out / "sub-01").symlink_to(elsewhere)
    (out / "sub-03").symlink_to(out / "sub-02")
    with pytest.raises(UserError, match="elsewhere/anat, outside of"):
        anat(out, "sub-01")
    assert anat(out, "sub-03_ses-1") == out / "sub-03" / "ses-1" / "anat"
    (tmp_path / "link").symlink_to(out)  # OUT itself may be one
    assert derivative(tmp_path / "link", "sub-02", "T1w").parent.name == "anat"
    with pytest.raises(UserError, match="outside of"):
        within(out, "sub-01", "x")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\\b", "a\0b", "a\nb", ".hidden", "~", "x" * 300])
def test_what_cannot_name_a_folder(name):
    assert not is_file_name(name)


@pytest.mark.parametrize("name", ["ours", "HA-GAN 2 (3D)", "étude", "v1.2", "set=a"])
def test_what_can(name):
    assert is_file_name(name)


def test_labels_are_letters_and_digits():
    assert label("Müller_01") == "Muller01" and len(label("患者")) == 8 and label("") == ""
    assert scan_name(["sub-1_.._.._evil", "ses-../.."]) == "sub-1evil_ses-" + label("../..")
    assert scan_name(["sub-01", "ses-m06"]) == "sub-01_ses-m06"


@pytest.fixture
def misnamed(cohort, tmp_path):
    """A data set with folders that are no BIDS names; two of them would have the name of another one."""
    root = tmp_path / "study"
    image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    for name in ("sub-1", "sub-1_.._.._evil", "sub-a-b", "sub-ab", "sub-", "sub-2/ses-1_.._.._.._x"):
        place = root / name / "anat"
        place.mkdir(parents=True)
        (place / "x_T1w.nii.gz").symlink_to(image)
    return root


def test_misnamed_folders_are_called_after_their_letters_and_digits_or_left_out(misnamed):
    with pytest.warns(UserWarning, match="labels are letters and digits") as warned:
        scans = read_cohort(misnamed)
    assert {s.name: s.subject for s in scans if not s.problem} == {
        "sub-1": "sub-1", "sub-1evil": "sub-1evil", "sub-ab": "sub-ab", "sub-2_ses-1x": "sub-2",
    }  # fmt: skip
    assert "sub-1_.._.._evil: called sub-1evil" in "\n".join(str(w.message) for w in warned)
    problems = {s.name: s.problem for s in scans if s.problem}
    assert problems.keys() == {"sub-a-b", "sub-"} and "would be called sub-ab, as another" in problems["sub-a-b"]
    assert sum(bool(problem) for _, problem in scan_folders(misnamed).values()) == 2


def test_a_study_lists_the_folder_that_cannot_be_named(misnamed):
    ids = ("sub-1", "sub-1_.._.._evil", "sub-ab", "sub-2")
    rows = "".join(f"{name}\t{age}\n" for age, name in enumerate(ids, start=30))
    (misnamed / "participants.tsv").write_text("participant_id\tage\n" + rows)
    with pytest.warns(UserWarning, match="called sub-1evil"):
        found = find_study(misnamed)
    assert [s.name for s in found.scans] == ["sub-1", "sub-1evil", "sub-2_ses-1x", "sub-ab"]
    assert [s.covariates["age"] for s in found.scans] == [30, 31, 33, 32]
    assert any("rename it" in reason for reason in found.problems.values())


def test_scans_named_by_hand_cost_one_row_each_and_leave_nothing_outside(cohort, tmp_path):
    out, image = tmp_path / "a" / "out", finer(next(cohort.glob("sub-*/anat/*_T1w.nii.gz")), tmp_path / "a")
    (out.parent / "other").mkdir()
    pipeline = Pipeline([Resample(spacing=8.0), Normalize()], load_template())
    scans = [Scan(name, name, image) for name in ("sub-1_.._.._other", "../../sub-2", "sub-ok")]
    rows = HERE.run(partial(preprocess_scan, out=out, pipeline=pipeline), {scan.name: scan for scan in scans}, "")
    assert [rows[s.name]["status"] for s in scans] == ["failed", "failed", "ok"]
    assert "expected a name like sub-01" in rows["../../sub-2"]["reason"]
    assert {p.name for p in tmp_path.iterdir()} == {"a"} and tree(out.parent / "other") == set()
    assert {p.name for p in out.parent.iterdir()} == {"other", "out", "in.nii.gz"}
    with pytest.raises(UserError, match="not a name"):
        write_participants(out, [Scan("x/../../y_ses-1", "x/../../y", image)])


def finer(path, folder):
    """An image with voxels of half the size, as preprocessing wants them at the least."""
    image = nib.load(path)
    array, affine = np.asarray(image.dataobj), image.affine.copy()
    for axis in range(3):
        array = array.repeat(2, axis)
    affine[:3, :3] /= 2
    folder.mkdir()
    nib.save(nib.Nifti1Image(array, affine), folder / "in.nii.gz")
    return folder / "in.nii.gz"


def test_a_set_removes_nothing_outside_of_its_folder(tmp_path):
    victim = tmp_path / "study" / "anat" / "kept.npy"
    victim.parent.mkdir(parents=True)
    victim.touch()

    scan = Scan("../../study", "sub-1", victim)
    brains = SimpleNamespace(
        problems={}, scans=[scan], rescale=True, ignore_affine=False, classes=None, grid="of the brains"
    )
    Store("s", brains, tmp_path / "out" / "work").fill()
    assert "not a name" in brains.problems["../../study"]
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "sub-1").symlink_to(victim.parent)
    with pytest.raises(UserError, match="outside of"):
        Store("s", brains, tmp_path / "out" / "work").clear()
    assert victim.is_file()


def test_hidden_files_are_no_input(cohort, tmp_path):
    source = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    place = tmp_path / "set" / "sub-01" / "anat"
    place.mkdir(parents=True)
    (place / "sub-01_T1w.nii.gz").symlink_to(source)
    names = "._sub-01_T1w.nii.gz", temporary_name("sub-01_T1w.nii.gz"), ".DS_Store", ".tmp-host-1-sub-9_T1w.nii"
    for root in (place, tmp_path / "set"):
        for name in names:
            (root / name).write_bytes(b"half")
    assert [s.image.name for s in read_cohort(tmp_path / "set")] == ["sub-01_T1w.nii.gz"]
    assert [s.name for s in find_scans(place)] == ["sub-01"]
    assert [s.image.name for s in find_study(tmp_path / "set").scans] == ["sub-01_T1w.nii.gz"]
    assert [p.name for p in visible(place)] == ["sub-01_T1w.nii.gz"]
    with pytest.raises(UserError, match="not a pattern"):
        visible(place, "/x")


def dead():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_are_removed_and_no_others(tmp_path):
    (tmp_path / "sub-01").mkdir()
    ours = temporary_name("x_T1w.nii.gz")
    gone = ours.replace(f"-{os.getpid()}-", f"-{dead()}-")
    parent = ours.replace(f"-{os.getpid()}-", f"-{os.getppid()}-")
    other, old = ".tmp-elsewhere-12-x.nii.gz", ".tmp-elsewhere-13-x.nii.gz"
    for name in (ours, gone, parent, other, old, ".tmp", "x.nii.gz"):
        (tmp_path / "sub-01" / name).touch()
    (tmp_path / f"{gone}dir" / "inside").mkdir(parents=True)
    outside = tmp_path.parent / "outside" / gone
    outside.parent.mkdir()
    outside.touch()
    (tmp_path / "link").symlink_to(outside.parent)
    os.utime(tmp_path / "sub-01" / old, (time.time() - 2 * 86400,) * 2)
    remove_leftovers(tmp_path)
    assert {p.name for p in (tmp_path / "sub-01").iterdir()} == {ours, parent, other, ".tmp", "x.nii.gz"}
    assert {p.name for p in tmp_path.iterdir()} == {"sub-01", "link"} and outside.exists()


def test_a_life_before_with_the_same_number_is_dead(tmp_path):
    """In a container every run may be process 1."""
    path = tmp_path / temporary_name("x.nii.gz")
    path.touch()
    os.utime(path, (time.time() - 3600,) * 2)
    remove_leftovers(tmp_path)
    assert not path.exists()


def test_a_long_name_is_written_too(tmp_path):
    for name in ("é" * 120 + ".nii.gz", "a" * 245 + ".nii.gz"):
        write_text(tmp_path / name, "content")
        assert (tmp_path / name).read_text() == "content"
        assert len(temporary_name(name).encode()) <= 255 and temporary_name(name).endswith(".nii.gz")
