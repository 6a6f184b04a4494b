"""`cortexgen register` and `cortexgen.register`: files, spaces, resuming, mistakes."""

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import cortexgen
from cortexgen.cli import run
from cortexgen.data.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, read_volume, write_volume
from cortexgen.io.bids import read_tsv
from cortexgen.metrics import dice
from cortexgen.spatial import folded, positions_in, resample, warp_labels

NAME = "MNI152NLin2009aSym"
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
    with pytest.raises(UserError, match="holds another run, with refine 0"):
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
