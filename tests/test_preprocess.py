"""`cortexgen preprocess` as a user calls it, on a cohort in which much is wrong."""

import hashlib
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cortexgen.cli import main, run
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.io.bids import read_tsv
from cortexgen.simulation.cohort import simulate_cohort

QUICK = "steps: [{class_path: Resample, init_args: {spacing: 4.0}}, {class_path: Normalize}]\n"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Steps that take a second."""
    path = tmp_path_factory.mktemp("steps") / "quick.yaml"
    path.write_text(QUICK)
    return str(path)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A raw study of five subjects, of which two can't be used, with a row too many."""
    brains, root = tmp_path_factory.mktemp("brains"), tmp_path_factory.mktemp("studies") / "étude"
    simulate_cohort(brains, subjects=5, seed=4, spacing=4.0, progress=False)
    rows = ["participant_id\tage\tsex\tgroup"]
    for k, scan in enumerate(read_cohort(brains), start=1):
        target = root / f"sub-{k}" / "anat" / f"sub-{k}_T1w.nii.gz"
        target.parent.mkdir(parents=True)
        shutil.copy(scan.image, target)
        rows.append(f"sub-{k}\t{20 + k}\t{'FM'[k % 2]}\t{'AB'[k % 2]}")
    (root / "participants.tsv").write_text("\n".join([*rows, "sub-9\t50\tF\tA"]) + "\n")
    cut = root / "sub-2" / "anat" / "sub-2_T1w.nii.gz"
    cut.write_bytes(cut.read_bytes()[:2000])
    image = nib.load(root / "sub-4" / "anat" / "sub-4_T1w.nii.gz")
    four = nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 2, axis=-1), image.affine)
    nib.save(four, root / "sub-4" / "anat" / "sub-4_T1w.nii.gz")
    return root


@pytest.fixture(scope="module")
def done(study, quick, tmp_path_factory):
    """The study preprocessed at once in two processes."""
    out = tmp_path_factory.mktemp("done") / "out"
    with pytest.raises(UserError, match=r"3 scan\(s\) failed"):
        run(["preprocess", str(study), str(out), "--config", quick, "--jobs", "2"])
    return out


def digests(root):
    return {p.relative_to(root): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*.nii.gz"))}


def test_the_good_scans_are_done_and_the_others_named(done):
    rows = {row["participant_id"]: row for row in read_tsv(done / "preprocess.tsv")}
    assert [name for name, row in rows.items() if row["status"] == "ok"] == ["sub-1", "sub-3", "sub-5"]
    assert "truncated" in rows["sub-2"]["reason"] and "3D" in rows["sub-4"]["reason"]
    assert "no T1w" in rows["sub-9"]["reason"]
    scans = read_cohort(done)
    assert [(s.name, s.covariates["age"], s.covariates["sex"]) for s in scans] == [
        ("sub-1", 21.0, "M"), ("sub-3", 23.0, "M"), ("sub-5", 25.0, "M"),
    ]  # fmt: skip
    assert all(300 < s.covariates["brain_volume_ml"] < 3000 for s in scans)
    for scan in scans:
        image = nib.load(scan.image)
        np.testing.assert_allclose(nib.affines.voxel_sizes(image.affine), 4)
        values = np.asarray(image.dataobj)
        assert values.min() == 0 and values.max() == pytest.approx(1)
    steps = json.loads((done / "dataset_description.json").read_text())["GeneratedBy"][0]["Steps"]
    assert [step["name"] for step in steps] == ["resample", "normalize"]
    page = (done / "preprocess.html").read_text()
    assert page.index("sub-2") < page.index("sub-1") and "<svg" in page


def test_the_cohort_is_a_bids_data_set(done, bids_errors):
    assert bids_errors(done) == []


def test_a_second_call_goes_on_and_another_selection_joins(study, quick, done, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["preprocess", str(study), str(out), "--config", quick]
    run([*call, "--where", "{age: '21'}"])
    first = (out / "sub-1" / "anat").stat().st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        main(call)
    said = capsys.readouterr()
    assert stop.value.code == 1 and "3 scan(s) ok, 0 to look at, 3 failed" in said.out
    assert said.err.splitlines()[-1].startswith("cortexgen: error: 3 scan(s) failed")
    assert (out / "sub-1" / "anat").stat().st_mtime_ns == first
    assert digests(out) == digests(done) and len(digests(out)) == 9
    run([*call, "--where", "{age: '23'}"])  # the others stay in the tables
    assert len(read_tsv(out / "preprocess.tsv")) == 6 and len(read_tsv(out / "participants.tsv")) == 3
    with pytest.raises(UserError, match=r"preprocessed otherwise: .*4\.0.*8\.0.*another folder"):
        run([*call, "--spacing", "8"])
    with pytest.raises(UserError, match="no step is called strip"):
        run([*call, "--skip", "strip"])


def test_the_bundled_preset_is_the_default():
    from cortexgen.preprocess import default_steps
    from cortexgen.training.presets import find_preset

    text = Path(find_preset("preprocess.yaml")).read_text()
    named = [line.split("class_path:")[1].split("#")[0].strip() for line in text.splitlines() if "class_path" in line]
    assert named == [type(step).__name__ for step in default_steps()]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--jobs", "0"], "1 or more"),
        (["--where", "{wing: 3}"], "no column 'wing'; there are age, group, sex"),
        (["--visits", "first,second"], "no visit"),
        (["--groups", "C"], "nobody has group"),
        (["--steps", "[]"], "none is left"),
        (["--config", "nothing.yaml"], "no such file, and no bundled preset"),
    ],
)
def test_mistakes_are_one_line(study, quick, tmp_path, options, expected):
    with pytest.raises(UserError, match=expected):
        run(["preprocess", str(study), str(tmp_path / "out"), "--config", quick, *options])
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
