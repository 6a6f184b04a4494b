"""Label maps that go along with their images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.ndimage import center_of_mass

from cortexgen.cli import run
from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume, write_volume
from cortexgen.io.bids import read_tsv
from cortexgen.preprocess import Align, Crop, Normalize, Pipeline, Resample, preprocess_scan
from cortexgen.preprocess.labels import take_table, with_labels
from cortexgen.simulation import simulate_cohort
from cortexgen.spatial import resample_labels

AGAIN = ["--skip", "strip,denoise,bias", "--affine", "always", "--labels", "*_dseg.nii*"]


@pytest.fixture
def labelled(native, template, tmp_path):
    """The template as a scanner sees it, with its labels, which have FreeSurfer's large numbers."""
    folder = tmp_path / "raw" / "sub-01" / "anat"
    scan = Scan("sub-01", "sub-01", folder / "sub-01_T1w.nii.gz", folder / "sub-01_dseg.nii.gz")
    moved = native.affine @ template.grid.affine
    labels = resample_labels(
        template.labels, torch.from_numpy(moved), native.grid.shape, torch.from_numpy(native.grid.affine)
    )
    write_volume(scan.image, native.image, native.grid)
    write_volume(scan.labels, torch.where(labels > 0, labels + 2000, 0), native.grid, np.int32)
    return scan


def test_labels_go_through_the_affine_of_their_image_and_keep_their_numbers(labelled, template, tmp_path):
    pipeline = Pipeline([Align(), Resample(3.0), Normalize(), Crop("brain")], template)
    preprocess_scan(labelled, tmp_path / "out", pipeline)
    path = next((tmp_path / "out").rglob("*_dseg.nii.gz"))
    assert path.name == "sub-01_space-MNI152NLin2009aSym_dseg.nii.gz"
    assert json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Sources"] == [
        labelled.labels.name
    ]
    labels, grid = read_volume(path, labels=True)
    image, same = read_volume(next((tmp_path / "out").rglob("*_desc-preproc_T1w.nii.gz")))
    assert grid.matches(same) and labels.shape == image.shape
    truth = template.to(grid).labels
    assert set(labels.unique().tolist()) <= {0, *range(2001, 2018)}
    for k in (1, 2):  # half a voxel aside would show
        places = [center_of_mass((v[0] == n).numpy()) for v, n in ((labels, 2000 + k), (truth, k))]
        assert np.linalg.norm(np.subtract(*(apply_affine(grid.affine, p) for p in places))) < 0.7
    assert float((labels.clamp(min=2000) - 2000 == truth)[truth > 0].float().mean()) > 0.8


def test_other_labels_are_other_results(labelled, template, tmp_path):
    pipeline, out = Pipeline([Resample(6.0)], template), tmp_path / "out"
    preprocess_scan(labelled, out, pipeline)
    labels, grid = read_volume(labelled.labels, labels=True)
    write_volume(labelled.labels, (labels > 0) * 7, grid, np.uint8)
    preprocess_scan(labelled, out, pipeline)
    assert read_volume(next(out.rglob("*_dseg.nii.gz")), labels=True)[0].unique().tolist() == [0, 7]
    preprocess_scan(Scan("sub-01", "sub-01", labelled.image), out, pipeline)  # without labels now
    assert not list(out.rglob("*_dseg*"))
    aside = np.eye(4)
    aside[:3, 3] = 900
    write_volume(labelled.labels, labels, Grid(grid.shape, aside @ grid.affine), np.int32)
    with pytest.raises(UserError, match=r"sub-01_dseg\.nii\.gz: none of its labels"):
        preprocess_scan(labelled, out, pipeline)


def test_each_scan_has_the_one_map_that_fits(tmp_path):
    """A brain's own, where `generate --warped-labels` wrote another beside it."""
    names = ["sub-1_T1w", "sub-1_dseg", "sub-1_desc-warped_dseg", "sub-2_T1w"]
    for name in (*names, "sub-3_T1w", "sub-3_desc-a_dseg", "sub-3_desc-b_dseg"):
        (tmp_path / f"{name}.nii.gz").touch()
    scans = [Scan(f"sub-{k}", f"sub-{k}", tmp_path / f"sub-{k}_T1w.nii.gz") for k in (1, 2, 3)]
    found, problems = with_labels(scans, "*_DSEG.nii*")
    assert [(s.name, s.labels and s.labels.name) for s in found] == [("sub-1", "sub-1_dseg.nii.gz"), ("sub-2", None)]
    assert list(problems) == ["sub-3"] and "2 files fit" in problems["sub-3"]
    assert with_labels(scans, "*-b_dseg.nii*")[0][2].labels == tmp_path / "sub-3_desc-b_dseg.nii.gz"
    with pytest.raises(UserError, match=r"labels: no file beside .*sub-1_T1w.* fits 'aseg\*'"):
        with_labels(scans, "aseg*")


def test_names_of_classes_are_taken_along_and_not_mixed(tmp_path):
    a, b, out = (tmp_path / name for name in "abo")
    for folder, name in ((a, "Cortex"), (b, "Rind"), (out, "")):
        folder.mkdir()
        if name:
            (folder / "dseg.tsv").write_text(f"index\tname\tcolor\n1\t{name}\t#ff0000\n")
    take_table(tmp_path, out)
    assert not list(out.iterdir())
    for _ in range(2):
        take_table(a, out)
    assert (out / "dseg.tsv").read_text() == (a / "dseg.tsv").read_text()
    assert (out / "dseg_LUT.txt").read_text().splitlines()[-1] == "1 Cortex 255 0 0 0"
    with pytest.raises(UserError, match="other classes"):
        take_table(b, out)


def test_a_prepared_cohort_is_aligned_anew_with_its_labels_and_participants(tmp_path):
    brains, out = tmp_path / "brains", tmp_path / "out"
    simulate_cohort(brains, subjects=1, seed=4, spacing=4.0, progress=False)
    scans = read_cohort(brains)
    run(["preprocess", str(brains), str(out), *AGAIN, "--spacing", "4"])
    rows = {row["participant_id"]: row for row in read_tsv(out / "preprocess.tsv")}
    assert all(row["affine"] == "found" for row in rows.values())
    for before, after in zip(scans, read_cohort(out), strict=True):
        assert after.name == before.name and after.covariates == before.covariates
        image, grid = read_volume(after.image)
        labels, same = read_volume(after.labels, labels=True)
        assert grid.matches(same) and float((image[labels > 0] > 0).float().mean()) > 0.97
        assert set(labels.unique().tolist()) <= set(read_volume(before.labels, labels=True)[0].unique().tolist())
    assert (out / "dseg.tsv").read_text() == Path(brains, "dseg.tsv").read_text()
