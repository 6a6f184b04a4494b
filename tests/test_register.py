"""`cortexgen register` and `cortexgen.register`: files, spaces, resuming, mistakes."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import cortexgen
from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, read_volume, write_volume
from cortexgen.io.bids import read_tsv, sha256
from cortexgen.metrics.overlap import dice
from cortexgen.registration.registrar import Registrar
from cortexgen.spatial import folded, positions_in, resample, warp_labels

NAME = "MNI152NLin2009aSym"
JA = hashlib.sha256("脳".encode()).hexdigest()[:8]
FILES = [
    f"from-{NAME}_to-T1w_mode-image_xfm.nii.gz",
    f"from-T1w_to-{NAME}_mode-image_xfm.nii.gz",
    "desc-warped_T1w.nii.gz",
    "desc-warped_dseg.nii.gz",
    f"space-{NAME}_desc-logjac_map.nii.gz",
    f"space-{NAME}_desc-velocity_field.nii.gz",
]


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The template as a scanner might give it: LAS, 2 x 2 x 2.5 mm, turned, scaled, shifted; with its labels."""
    folder = tmp_path_factory.mktemp("native")
    template = load_template()
    angle = np.deg2rad(9)
    move = np.eye(4)
    move[:3, :3] = np.diag([0.96, 1.03, 1.0]) @ [
        [1, 0, 0],
        [0, np.cos(angle), -np.sin(angle)],
        [0, np.sin(angle), np.cos(angle)],
    ]
    move[:3, 3] = [5, 12, -20]
    grid = Grid((84, 112, 92), np.array([[0.0, 0, 2, -90], [0, 2, 0, -115], [2.5, 0, 0, -115], [0, 0, 0, 1]]), "LAS")
    to = torch.from_numpy(np.linalg.inv(move)) @ grid.torch_affine
    image = resample(template.image[None], template.grid.torch_affine, grid.shape, to)[0]
    still = positions_in(template.grid.torch_affine, torch.zeros(1, 3, *grid.shape), to)
    labels = warp_labels(template.labels[None], still, 18)[0][0]
    np.save(folder / "move.npy", move)
    write_volume(folder / "sub-a_T1w.nii.gz", 900 * image, grid)
    write_volume(folder / "sub-a_dseg.nii.gz", labels, grid, np.uint8)
    return folder


@pytest.fixture(scope="module")
def result(native, tmp_path_factory):
    """The native image registered by the shipped weights."""
    out = tmp_path_factory.mktemp("register") / "out"
    run(["register", str(native / "sub-a_T1w.nii.gz"), str(out), "--frames", "3"])
    return out


def test_a_native_image_gets_everything_on_its_own_grid(native, result):
    anat = result / "sub-a" / "anat"
    assert {f"sub-a_{name}" for name in FILES} <= {p.name for p in anat.iterdir()}
    given = nib.load(native / "sub-a_T1w.nii.gz")
    for name in (FILES[0], FILES[2], FILES[3]):
        made = nib.load(anat / f"sub-a_{name}")
        assert made.shape[:3] == given.shape and nib.aff2axcodes(made.affine) == ("L", "A", "S")
        np.testing.assert_allclose(made.affine, given.affine, atol=1e-4)
    labels, _ = read_volume(anat / f"sub-a_{FILES[3]}", labels=True)
    true, _ = read_volume(native / "sub-a_dseg.nii.gz", labels=True)
    assert dice(labels, true, 18).nanmean() > 0.85
    field, grid = read_field(anat / f"sub-a_{FILES[0]}")
    true_affine = torch.from_numpy(np.load(native / "move.npy")).inverse() @ grid.torch_affine
    wanted = positions_in(torch.eye(4), torch.zeros(1, 3, *grid.shape), true_affine)  # template points, mm
    error = positions_in(torch.eye(4), field[None], grid.torch_affine) - wanted
    assert error.norm(dim=1)[true > 0].mean() < 1.0  # half a voxel of the weights' grid
    row = read_tsv(result / "registration.tsv")[0]
    assert row["participant_id"] == "sub-a" and row["status"] == "ok" and row["folded_voxels"] == 0
    assert row["volume_Thalamus_ml"] > 5
    for name in FILES[:2]:
        assert int(folded(read_field(anat / f"sub-a_{name}")[0][None])) == 0


def test_results_are_a_bids_data_set_with_colours(result, bids_errors):
    assert bids_errors(result) == []
    endings = (".tsv", ".label", ".ctbl", ".lut", "_LUT.txt")
    assert {path.name for path in result.glob("dseg*")} == {f"dseg{ending}" for ending in endings}


def test_predicted_fields_are_a_bids_data_set(registered, bids_errors):
    assert bids_errors(registered[1]) == [] and (registered[1] / "dseg.tsv").is_file()


def test_simpleitk_warps_template_and_labels_as_we_did(native, result):
    anat = result / "sub-a" / "anat"
    template = load_template()
    write_volume(native / "template.nii.gz", template.image, template.grid)
    field = sitk.Cast(sitk.ReadImage(str(anat / f"sub-a_{FILES[0]}")), sitk.sitkVectorFloat64)
    ours = sitk.ReadImage(str(anat / f"sub-a_{FILES[2]}"))
    fine = template.to(template.grid.at_spacing(2.0))  # as fine as the image asks for
    write_volume(native / "template.nii.gz", fine.image, fine.grid)
    moving = sitk.ReadImage(str(native / "template.nii.gz"))
    (native / "template.nii.gz").unlink()
    theirs = sitk.Resample(moving, ours, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, 0.0)
    difference = np.abs(sitk.GetArrayFromImage(theirs) - sitk.GetArrayFromImage(ours))
    assert np.quantile(difference, 0.999) < 1e-3


@pytest.mark.parametrize(("origin", "target"), [(NAME, "T1w"), ("T1w", NAME)])
def test_nitransforms_moves_points_as_we_say(result, origin, target):
    nonlinear = pytest.importorskip("nitransforms.nonlinear", reason="nitransforms is not installed")
    itk = pytest.importorskip("nitransforms.io.itk")
    path = result / "sub-a" / "anat" / f"sub-a_from-{origin}_to-{target}_mode-image_xfm.nii.gz"
    theirs = nonlinear.DenseFieldTransform(itk.ITKDisplacementsField.from_filename(path))
    field, grid = read_field(path)
    places = np.random.default_rng(0).integers(0, grid.shape, (2000, 3))
    points = nib.affines.apply_affine(grid.affine, places)
    moved = places + field.numpy().astype(np.float64)[(slice(None), *places.T)].T
    assert np.abs(theirs.map(points) - nib.affines.apply_affine(grid.affine, moved)).max() < 1e-3  # millimetres
    assert np.abs(theirs.map(points) - points).max() > 10


def test_nitransforms_warps_the_template_as_we_did(result):
    nonlinear = pytest.importorskip("nitransforms.nonlinear", reason="nitransforms is not installed")
    itk, resampling = (pytest.importorskip(f"nitransforms.{name}") for name in ("io.itk", "resampling"))
    anat = result / "sub-a" / "anat"
    field = nonlinear.DenseFieldTransform(itk.ITKDisplacementsField.from_filename(anat / f"sub-a_{FILES[0]}"))
    ours, template = nib.load(anat / f"sub-a_{FILES[2]}"), nib.load(next(result.glob("tpl-*/*_T1w.nii.gz")))
    theirs = resampling.apply(field, template, reference=ours, order=1, prefilter=False, output_dtype="float32")
    difference = np.abs(np.asarray(theirs.dataobj) - ours.get_fdata())
    assert np.quantile(difference, 0.999) < 1e-3  # of intensities in [0, 1], as for SimpleITK


def resampled(moving, like, field, interpolator):
    field = sitk.DisplacementFieldTransform(sitk.Cast(sitk.ReadImage(str(field)), sitk.sitkVectorFloat64))
    moving, like = sitk.ReadImage(str(moving)), sitk.ReadImage(str(like))
    return sitk.GetArrayFromImage(sitk.Resample(moving, like, field, interpolator, 0.0)), sitk.GetArrayFromImage(like)


def test_the_moving_image_beside_the_results_gives_them_in_simpleitk(result):
    """As antsApplyTransforms does: linear for the image, generic label for the dseg."""
    anat, template = result / "sub-a" / "anat", result / f"tpl-{NAME}" / f"tpl-{NAME}_res-2"
    theirs, ours = resampled(
        f"{template}_T1w.nii.gz", anat / f"sub-a_{FILES[2]}", anat / f"sub-a_{FILES[0]}", sitk.sitkLinear
    )
    assert np.quantile(np.abs(theirs - ours), 0.999) < 1e-3 and ours.max() > 0.8
    theirs, ours = resampled(
        f"{template}_dseg.nii.gz", anat / f"sub-a_{FILES[3]}", anat / f"sub-a_{FILES[0]}", sitk.sitkLabelLinear
    )
    assert (theirs != ours).mean() < 1e-4 and len(np.unique(ours)) == 18


def test_fields_of_half_the_resolution_warp_hardly_otherwise(native, result, tmp_path, capsys):
    run(["register", str(native / "sub-a_T1w.nii.gz"), str(tmp_path / "out"), "--field-spacing", "4"])
    assert re.search(r"1 image\(s\) registered \(1 now\) in [\d.]+ s, [\d.]+ processor", capsys.readouterr().out)
    anat, full, moving = tmp_path / "out" / "sub-a" / "anat", result / "sub-a" / "anat", result / f"tpl-{NAME}"
    moving, like = moving / f"tpl-{NAME}_res-2_T1w.nii.gz", full / f"sub-a_{FILES[2]}"
    assert (anat / f"sub-a_{FILES[2]}").read_bytes() == like.read_bytes()
    theirs, ours = resampled(moving, like, anat / f"sub-a_{FILES[0]}", sitk.sitkLinear)
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.995 and np.abs(theirs - ours).mean() < 0.01
    for name in FILES[:2]:
        assert 4 * (anat / f"sub-a_{name}").stat().st_size < (full / f"sub-a_{name}").stat().st_size
        assert int(folded(read_field(anat / f"sub-a_{name}")[0][None])) == 0
    (row,) = read_tsv(tmp_path / "out" / "registration.tsv")
    assert row["processor_seconds"] > 0


def test_frames_are_a_4d_image_and_a_moving_picture(result):
    anat = result / "sub-a" / "anat"
    frames = nib.load(anat / "sub-a_desc-continuous_T1w.nii.gz")
    last = nib.load(anat / "sub-a_desc-warped_T1w.nii.gz")
    assert frames.shape == (*last.shape, 3)
    np.testing.assert_allclose(frames.dataobj[..., 2], last.dataobj[...], atol=1e-4)
    assert (anat / "sub-a_desc-continuous_T1w.gif").stat().st_size < 3e6


def test_a_second_run_redoes_nothing_and_other_options_are_refused(native, result):
    before = {p: p.stat().st_mtime_ns for p in (result / "sub-a").rglob("*.nii.gz")}
    run(["register", str(native / "sub-a_T1w.nii.gz"), str(result), "--frames", "3"])
    assert before == {p: p.stat().st_mtime_ns for p in (result / "sub-a").rglob("*.nii.gz")}
    with pytest.raises(UserError, match="holds another run, with refine 6"):
        run(["register", str(native / "sub-a_T1w.nii.gz"), str(result), "--frames", "3", "--refine", "2"])


def test_any_pair_and_its_labels(cohort, registered, tmp_path):
    """Two subjects at 8 mm with other weights; `--fixed` says the same as the first argument."""
    checkpoint = registered[0] / "checkpoints" / "last.ckpt"
    a, b = sorted(cohort.glob("sub-*/anat/*_T1w.nii.gz"))[:2]
    dseg = next(a.parent.glob("*_dseg.nii.gz"))
    pair = ["--moving", str(a), "--moving_labels", str(dseg), "--checkpoint", str(checkpoint), "--refine", "3"]
    table = tmp_path / "table.tsv"
    table.write_text("index\tname\n" + "".join(f"{k}\tregion{k}\n" for k in range(18)))
    run(["register", str(tmp_path / "x"), "--fixed", str(b), *pair, "--label_table", str(table)])
    (row,) = read_tsv(tmp_path / "x" / "registration.tsv")
    assert row["volume_region7_ml"] > 5 and "volume_Thalamus_ml" not in row
    assert row["ssim"] > row["ssim_before"] and row["refinement_steps"] == 3
    (field,) = (tmp_path / "x").rglob("*_to-T1w_mode-image_xfm.nii.gz")
    assert f"from-{''.join(c for c in a.name.split('.')[0] if c.isalnum())}_to" in field.name
    warped = cortexgen.register(a, b, moving_labels=dseg, checkpoint=checkpoint, refine=3)
    image, grid = read_volume(next((tmp_path / "x").rglob("*_desc-warped_T1w.nii.gz")))
    assert warped.fixed.grid.matches(grid)
    torch.testing.assert_close(warped.warped, image, atol=1e-4, rtol=0)
    written, _ = read_volume(next((tmp_path / "x").rglob("*_desc-warped_dseg.nii.gz")), labels=True)
    assert torch.equal(warped.labels, written)


def test_labels_of_large_numbers_are_the_same_labels(cohort, registered, tmp_path):
    """Classes 1 to 17 as 2019 to 2035: all that is written is what small numbers give, under the file's numbers."""
    weights = registered[0] / "checkpoints" / "last.ckpt"
    made = {}
    for shift in (0, 2018):
        root = tmp_path / str(shift)
        for subject in ("sub-0001", "sub-0002"):
            (root / subject / "anat").mkdir(parents=True)
            image, dseg = (next((cohort / subject / "anat").glob(f"*_{end}.nii.gz")) for end in ("T1w", "dseg"))
            shutil.copy(image, root / subject / "anat")
            labels, grid = read_volume(dseg, labels=True)
            write_volume(root / subject / "anat" / dseg.name, labels + shift * (labels > 0), grid, np.int32)
        image, dseg = (next((root / "sub-0002" / "anat").glob(f"*_{end}.nii.gz")) for end in ("T1w", "dseg"))
        options = ["--moving", str(image), "--moving_labels", str(dseg), "--checkpoint", str(weights)]
        run(["register", str(root), str(root / "out"), *options])
        written = root / "out" / "sub-0001" / "anat" / f"sub-0001_{FILES[3]}"
        rows = read_tsv(root / "out" / "registration.tsv")
        made[shift] = read_volume(written, labels=True)[0], nib.load(written).get_data_dtype(), rows[0]
    (small, kind, row), (large, wide, other) = made[0], made[2018]
    assert kind == np.uint8 and wide == np.int16
    assert torch.equal(large, small + 2018 * (small > 0)) and len(small.unique()) > 12
    assert 0 < row["dice_before"] == other["dice_before"] and row["dice"] == other["dice"]
    volumes = {k: other[f"volume_label-{k + 2018}_ml"] for k in range(1, 18) if f"volume_label-{k + 2018}_ml" in other}
    assert len(volumes) > 12 and volumes == {k: row[f"volume_label-{k}_ml"] for k in volumes}


def test_fitted_labels_are_written_beside_the_warped_ones(cohort, registered, tmp_path):
    from cortexgen.atlas.fitting import fit_labels
    from cortexgen.atlas.intensity import normalize

    options = ["--checkpoint", str(registered[0] / "checkpoints/last.ckpt"), "--fit_labels"]
    run(["register", str(cohort), str(tmp_path / "out"), *options])
    row = read_tsv(tmp_path / "out" / "registration.tsv")[0]
    name, classes = row["participant_id"], load_template().classes
    source = next((cohort / name / "anat").glob("*_T1w.nii.gz"))
    truth, grid = read_volume(next((cohort / name / "anat").glob("*_dseg.nii.gz")), labels=True)
    warped, fitted = (
        read_volume(tmp_path / "out" / name / "anat" / f"{name}_desc-{what}_dseg.nii.gz", labels=True)[0]
        for what in ("warped", "fitted")
    )
    image = normalize(read_volume(source)[0], source)
    assert torch.equal(fitted, fit_labels(image, warped, classes, min(grid.spacing)))
    assert not torch.equal(fitted, warped)
    expected = dice(fitted, truth, len(classes))
    assert row["dice_fitted"] == pytest.approx(float(expected.nanmean()), abs=1e-4)
    assert row["dice_fitted_Cerebral-Cortex"] == pytest.approx(float(expected[1]), abs=1e-4)


@pytest.fixture
def at_8mm(cohort, registered):
    """Images of the cohort, and the options of weights that are quick."""
    return sorted(cohort.glob("sub-*/anat/*_T1w.nii.gz")), [
        "--checkpoint",
        str(registered[0] / "checkpoints/last.ckpt"),
    ]


def hashes(root):
    return {str(p.relative_to(root)): sha256(p) for p in root.rglob("*.nii.gz")}


def test_another_image_of_the_same_name_is_registered_anew(at_8mm, tmp_path, capsys):
    (one, two, *_), options = at_8mm
    alone = tmp_path / "alone"
    for folder, image, out in (("a", one, "out"), ("b", two, "out"), ("b", two, "alone")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "sub-01_T1w.nii.gz").write_bytes(image.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(["register", str(tmp_path / folder), str(tmp_path / out), *options])
    assert hashes(tmp_path / "out") == hashes(alone)
    rows = [read_tsv(tmp_path / name / "registration.tsv")[0] for name in ("out", "alone")]
    assert rows[0]["ssim"] == rows[1]["ssim"] and rows[0]["status"] == "ok"
    (tmp_path / "c").mkdir()  # a third cohort, of another name: the first ones' rows stay
    (tmp_path / "c" / "sub-02_T1w.nii.gz").write_bytes(one.read_bytes())
    run(["register", str(tmp_path / "c"), str(tmp_path / "out"), *options])
    assert [row["participant_id"] for row in read_tsv(tmp_path / "out" / "registration.tsv")] == ["sub-01", "sub-02"]


def test_other_moving_labels_or_names_of_them_are_another_run(at_8mm, tmp_path):
    (one, two, *_), options = at_8mm
    labels = tmp_path / "labels.nii.gz"
    labels.write_bytes(next(one.parent.glob("*_dseg.nii.gz")).read_bytes())
    table = tmp_path / "table.tsv"
    table.write_text("index\tname\n" + "".join(f"{k}\tregion{k}\n" for k in range(18)))
    args = ["register", str(two), str(tmp_path / "out"), "--moving", str(one), *options, "--moving_labels", str(labels)]
    run([*args, "--label_table", str(table)])
    run([*args, "--label_table", str(table)])
    table.write_text(table.read_text().replace("region7", "another"))
    with pytest.raises(UserError, match="holds another run, with label_table"):
        run([*args, "--label_table", str(table)])
    labels.write_bytes(next(two.parent.glob("*_dseg.nii.gz")).read_bytes())
    with pytest.raises(UserError, match="holds another run, with moving_labels"):
        run([*args, "--label_table", str(table)])


def test_hostile_names_are_rows_with_a_reason_or_done(at_8mm, tmp_path):
    """As a process of its own, so that what is printed is printed for good."""
    (one, *_), options = at_8mm
    folder = tmp_path / "in"
    (folder / "folder.nii.gz").mkdir(parents=True)
    good = ("sub-ok_T1w.nii.gz", "脳.nii.gz", "ONE.NII.GZ", os.fsdecode(b"sub-\xff.nii.gz"))
    bad = ("a-b.nii.gz", "ab.nii.gz", "y" * 240 + ".nii.gz")
    for name in (*good, *bad):
        (folder / name).write_bytes(one.read_bytes())
    (folder / os.fsdecode(b"bad\xfe.nii.gz")).write_bytes(b"no image")
    (folder / "gone.nii.gz").symlink_to(tmp_path / "nothing")
    command = [sys.executable, "-m", "cortexgen", "register", folder, tmp_path / "out", *options]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"})
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 1 and "Traceback" not in said and "5 of 9 image(s) failed, the others are done" in said
    rows = {row["participant_id"]: row["status"] for row in read_tsv(tmp_path / "out" / "registration.tsv")}
    assert [name for name, status in rows.items() if status == "ok"] == ["sub-ONE", "sub-ok", "sub-sub", f"sub-{JA}"]
    expected = {"sub-ab": "2 files would be called", "sub-gone": "a link to nothing", "sub-bad": "not a readable"}
    expected |= {"sub-folder": "a folder", "sub-" + "y" * 240: "its name has 244 characters"}
    assert {name: status for name, status in rows.items() if status != "ok"}.keys() == expected.keys()
    assert all(text in rows[name] for name, text in expected.items())


def test_two_runs_of_one_subject_and_any_error_leave_the_others(at_8mm, tmp_path, monkeypatch):
    images, options = at_8mm
    data = tmp_path / "in"
    for k, names in enumerate((["run-1_T1w", "run-2_T1w"], ["T1w"], ["T1w"], ["T1w"])):
        for name in names:
            path = data / f"sub-0{k}" / "anat" / f"sub-0{k}_{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[k].read_bytes())

    def fails(registrar, path, *args):
        if "sub-02" in path.name:
            raise ZeroDivisionError("float\ndivision")
        return prepare(registrar, path, *args)

    prepare = Registrar.prepare
    monkeypatch.setattr(Registrar, "prepare", fails)
    with pytest.raises(UserError, match=r"2 of 4 image\(s\) failed, the others are done; sub-00: .*2 files fit"):
        run(["register", str(data), str(tmp_path / "out"), *options])
    rows = {row["participant_id"]: row["status"] for row in read_tsv(tmp_path / "out" / "registration.tsv")}
    assert rows.pop("sub-02") == "failed: ZeroDivisionError: float division" and rows.pop("sub-00")[:7] == "failed:"
    assert rows == {"sub-01": "ok", "sub-03": "ok"} and not (tmp_path / "out" / "sub-02").exists()


@pytest.mark.parametrize("trust", ["sform", "qform"])
def test_results_lie_where_the_trusted_form_says_for_itk_too(cohort, registered, tmp_path, trust):
    """An image at two places, 24 mm apart: through SimpleITK, field and warped image are at the one that was chosen."""
    given = nib.load(sorted(cohort.glob("sub-*/anat/*_T1w.nii.gz"))[0])
    forms = {"sform": given.affine.copy(), "qform": given.affine}
    forms["sform"][0, 3] += 24
    two = nib.Nifti1Image(np.asarray(given.dataobj, np.float32), None)
    two.set_qform(forms["qform"], 1)
    two.set_sform(forms["sform"], 2)
    nib.save(two, tmp_path / "sub-1_T1w.nii.gz")
    call = ["register", str(tmp_path / "sub-1_T1w.nii.gz"), str(tmp_path / "out")]
    call += ["--checkpoint", str(registered[0] / "checkpoints" / "last.ckpt")]
    run([*call, "--trust", trust])
    for name in (FILES[0], FILES[2]):
        (path,) = (tmp_path / "out").rglob(f"sub-1_{name}")
        header = nib.load(path).header
        for affine in (header.get_sform(), header.get_qform()):
            np.testing.assert_allclose(affine, forms[trust], atol=1e-4)
        lps = np.diag([-1, -1, 1]) @ forms[trust][:3, 3]
        np.testing.assert_allclose(sitk.ReadImage(str(path)).GetOrigin(), lps, atol=1e-4)
    with pytest.raises(UserError, match="holds another run, with trust"):
        run([*call, "--trust", {"sform": "qform", "qform": "sform"}[trust]])


def test_one_bad_image_of_a_folder_is_named_and_the_others_are_done(cohort, registered, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    good = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    (folder / "sub-good_T1w.nii.gz").write_bytes(good.read_bytes())
    (folder / "sub-bad_T1w.nii.gz").write_bytes(b"no image")
    checkpoint = str(registered[0] / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"1 of 2 image\(s\) failed, the others are done; sub-bad: .*not a readable"):
        run(["register", str(folder), str(tmp_path / "out"), "--checkpoint", checkpoint])
    rows = {row["participant_id"]: row for row in read_tsv(tmp_path / "out" / "registration.tsv")}
    assert rows["sub-good"]["status"] == "ok" and rows["sub-bad"]["status"].startswith("failed: ")
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Weights"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--refine", "-1"], "--refine: expected 0 or more, got -1"),
        (["--frames", "1"], "--frames: expected 0 or more, not 1, got 1"),
        (["--fit_labels", "--moving", "x.nii"], "--fit_labels: the moving image has no labels"),
        (["--moving_labels", "x.nii"], "--moving_labels: give --moving too"),
        (["--device", "nowhere"], "device nowhere: not here"),
        (["--checkpoint", "absent.ckpt"], "absent.ckpt: no such file"),
        (["--template", "absent.nii"], "neither a file nor the name"),
    ],
)
def test_mistakes_are_one_line(cohort, registered, tmp_path, options, message):
    if "--checkpoint" not in options:
        options = [*options, "--checkpoint", str(registered[0] / "checkpoints" / "last.ckpt")]
    with pytest.raises(UserError, match=message):
        run(["register", str(cohort), str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_another_template_than_the_weights_is_refused(cohort, registered, tmp_path):
    image = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    checkpoint = str(registered[0] / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match="the weights' template has hash"):
        run(["register", str(cohort), str(tmp_path / "out"), "--template", str(image), "--checkpoint", checkpoint])
