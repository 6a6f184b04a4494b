import errno
import json
import os
import pickle
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io import read_volume, write_volume
from cortexgen.preprocess import (
    Align,
    Crop,
    Denoise,
    Normalize,
    Pipeline,
    Resample,
    Step,
    StripSkull,
    default_steps,
    preprocess_scan,
)
from cortexgen.registry import everything
from cortexgen.runner.cohort import HERE
from cortexgen.runner.threads import limited_threads

SPACE = "space-MNI152NLin2009aSym"


@pytest.fixture(scope="module")
def pipeline(template):
    """Everything that is fast: the input is stripped, and has little noise and shading."""
    return Pipeline([Align(), Resample(3.0), Normalize()], template)


@pytest.fixture(scope="module")
def scan(native, tmp_path_factory):
    """A file in a path that is not ASCII."""
    path = tmp_path_factory.mktemp("raw") / "Jürgen 脑" / "sub-01_T1w.nii.gz"
    write_volume(path, native.image, native.grid)
    return Scan("sub-01_ses-1", "sub-01", path)


@pytest.fixture(scope="module")
def done(scan, pipeline, tmp_path_factory):
    """An output folder and the row of the scan."""
    out = tmp_path_factory.mktemp("preprocessed") / "ausführlich"
    return out, preprocess_scan(scan, out, pipeline)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_what_a_scan_leaves_has_the_names_of_bids(done, native):
    out, row = done
    assert row["status"] == "ok", row
    folder, stem = "sub-01/ses-1/anat", "sub-01_ses-1"
    xfm = f"{stem}_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm"
    images = [f"{stem}_{SPACE}_desc-preproc_T1w", f"{stem}_{SPACE}_desc-brain_mask", f"{stem}_desc-brain_mask"]
    expected = [f"{folder}/{name}{end}" for name in images for end in (".json", ".nii.gz")]
    expected += [f"{folder}/{xfm}.json", f"{folder}/{xfm}.txt", f"{folder}/{stem}_desc-preproc_metrics.json"]
    assert files(out) == sorted([*expected, "sub-01/figures/sub-01_ses-1_desc-preproc_T1w.png"])
    mask, grid = read_volume(out / folder / f"{stem}_desc-brain_mask.nii.gz")
    assert grid.matches(native.grid) and grid.codes == "LAS"
    assert row["brain_volume_ml"] == pytest.approx(float(mask.sum()) * native.grid.voxel_volume / 1000)
    assert torch.equal(mask > 0, native.image > 0)


def test_the_result_is_the_template_again(done, template):
    image, grid = read_volume(next(done[0].rglob("*_T1w.nii.gz")))
    assert grid.matches(template.grid) and float(image.min()) >= 0 and float(image.max()) == 1
    inside = template.mask & (image > 0)
    assert np.corrcoef(image[inside], template.image[inside])[0, 1] > 0.9


def test_sidecars_and_the_affine_say_what_was_done(done, pipeline, native):
    folder = done[0] / "sub-01/ses-1/anat"
    about = json.loads(next(folder.glob("*_T1w.json")).read_text())
    assert about["SkullStripped"] and about["SpatialReference"] == "MNI152NLin2009aSym"
    assert about["Sources"] == ["sub-01_T1w.nii.gz"] and about["Preprocessing"] == pipeline.describe()
    transform = sitk.ReadTransform(str(next(folder.glob("*_xfm.txt"))))
    point = np.array([10.0, -20, 30])
    lps = np.array([-1, -1, 1])
    found = lps * transform.TransformPoint((lps * point).tolist())
    assert np.linalg.norm(found - (native.affine @ [*point, 1])[:3]) < 1


def test_a_second_run_is_byte_identical(done, scan, pipeline, tmp_path):
    preprocess_scan(scan, tmp_path, pipeline)
    assert files(tmp_path) == files(done[0])
    for name in files(tmp_path):
        if not name.endswith("metrics.json"):
            assert (done[0] / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_what_is_done_is_not_done_again_unless_something_changed(done, scan, pipeline, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    again = Scan(scan.name, scan.subject, tmp_path / "scan.nii.gz")
    shutil.copy(scan.image, again.image)
    monkeypatch.setattr(Pipeline, "run", lambda *args: pytest.fail("it runs again"))
    assert preprocess_scan(again, out, pipeline) == done[1]
    metrics = next(out.rglob("*_metrics.json"))
    metrics.write_text(metrics.read_text()[:-40])  # a run before was killed
    with pytest.raises(pytest.fail.Exception, match="again"):
        preprocess_scan(again, out, pipeline)
    assert not files(out)
    shutil.copytree(done[0], out, dirs_exist_ok=True)
    image, grid = read_volume(scan.image)
    write_volume(again.image, image + 1, grid)
    with pytest.raises(pytest.fail.Exception, match="again"):
        preprocess_scan(again, out, pipeline)


def failed(scan, out, pipeline, words):
    row = HERE.run(partial(preprocess_scan, out=out, pipeline=pipeline), {scan.name: scan}, "")[scan.name]
    assert row["participant_id"] == scan.name and row["status"] == "failed" and "\n" not in row["reason"]
    assert words in row["reason"]
    assert not out.exists() or not files(out)
    return row


def test_a_bad_file_is_a_row_and_takes_away_what_an_earlier_run_left(done, scan, pipeline, tmp_path):
    out, bad = tmp_path / "out", tmp_path / "sub-01_T1w.nii.gz"
    shutil.copytree(done[0], out)
    bad.write_bytes(scan.image.read_bytes()[:20_000])
    failed(Scan(scan.name, scan.subject, bad), out, pipeline, "truncated")
    failed(Scan(scan.name, scan.subject, tmp_path / "missing.nii.gz"), out, pipeline, "missing.nii.gz: no such file")


def test_an_affine_that_failed_is_a_row_with_its_numbers(scan, template, tmp_path):
    pipeline = Pipeline([Align("never"), Resample(3.0)], template)
    row = failed(scan, tmp_path / "out", pipeline, "its affine to MNI152NLin2009aSym failed: overlap 0.")
    assert str(scan.image) in row["reason"]


@pytest.mark.parametrize("written", [0, 2])
def test_no_space_left_is_a_row_and_leaves_no_file(scan, template, tmp_path, monkeypatch, written):
    calls, save = [], Path.write_bytes

    def full(path, content):
        save(path, content)
        calls.append(path)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    pipeline = Pipeline([Resample(3.0), Normalize()], template)
    failed(scan, tmp_path / "out", pipeline, "cannot write there (No space left on device)")


class Early(Step):
    """One that says itself where it belongs."""

    name, before, needs = "early", ("normalize",), ("denoise",)

    def __call__(self, subject):
        pass


class Broken(Step):
    """A tool that fails as ITK does."""

    name = "broken"

    def __call__(self, subject):
        raise RuntimeError("Exception thrown in SimpleITK:\n  something ITK says")


def test_a_tool_that_fails_is_a_row(scan, template, tmp_path):
    failed(scan, tmp_path / "out", Pipeline([Broken()], template), "the step broken failed: something ITK says")


@pytest.mark.parametrize(
    ("chosen", "skip", "words"),
    [
        ([Resample(), Align()], (), "resample comes before align"),
        ([Normalize(), StripSkull()], (), "normalize comes before strip"),
        ([Normalize(), Crop()], (), "crop needs resample"),
        ([Crop(), Resample()], (), "crop comes before resample"),
        ([Denoise(), Align()], (), "align needs resample"),
        ([Denoise(), Denoise()], (), "denoise comes twice"),
        ([Denoise(), Normalize(), Early()], (), "normalize comes before early"),
        ([Early(), Normalize()], (), "early needs denoise"),
        ([Denoise()], ("denoise",), "none is left"),
        ([Denoise()], ("skull",), "no step is called skull; there are denoise"),
    ],
)
def test_an_order_that_cannot_work_is_refused(template, chosen, skip, words):
    with pytest.raises(UserError, match=words):
        Pipeline(chosen, template, skip)


def test_a_missing_tool_is_known_before_the_first_scan(template, monkeypatch):
    monkeypatch.setattr(Denoise, "tools", ("no-such-package",))
    with pytest.raises(UserError, match="denoise needs no-such-package"):
        Pipeline(default_steps(), template)
    Pipeline(default_steps(), template, ["denoise"])


def test_a_description_is_plain_and_tells_options_and_versions(template):
    described = Pipeline(default_steps(), template).describe()
    assert json.loads(json.dumps(described)) == described
    assert [step["name"] for step in described] == ["strip", "denoise", "bias", "align", "resample", "normalize"]
    assert described[1]["options"] == {"noise": "Rician", "patch": 1, "search": 2}
    assert described[4]["options"]["spacing"] == 1.0 and described[1]["tools"]["antspyx"][0].isdigit()
    classes = everything("steps")
    assert len({step.name for step in classes.values()}) == len(classes)
    assert all(name == step.__name__ for name, step in classes.items())


def test_a_pipeline_reaches_another_process_without_its_template(template):
    sent = pickle.dumps(Pipeline(default_steps(), load_template()))
    assert len(sent) < 10_000 and pickle.loads(sent).template is load_template()
    other = pickle.loads(pickle.dumps(Pipeline(default_steps(), template)))
    assert torch.equal(other.template.image, template.image)


def test_without_a_grid_to_go_to_results_stay_in_native_space(scan, template, tmp_path):
    row = preprocess_scan(scan, tmp_path, Pipeline([Normalize()], template))
    assert row["status"] == "ok"
    image, grid = read_volume(tmp_path / "sub-01/ses-1/anat/sub-01_ses-1_desc-preproc_T1w.nii.gz")
    source, where = read_volume(scan.image)
    assert grid.matches(where) and np.corrcoef(image.flatten(), source.flatten())[0, 1] > 0.999
    assert len(files(tmp_path)) == 5


def test_threads_are_limited_and_given_back(monkeypatch):
    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with pytest.raises(KeyError), limited_threads(3):
        assert torch.get_num_threads() == sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
        assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "3"
        raise KeyError
    assert before == (torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
