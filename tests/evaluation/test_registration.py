import json
import math
import os
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import binary_fill_holes, gaussian_filter
from scipy.spatial.transform import Rotation

from cortexgen.atlas.template import load_template
from cortexgen.commands.register import register
from cortexgen.errors import UserError
from cortexgen.evaluation import registration
from cortexgen.evaluation.pairs import Sources
from cortexgen.evaluation.reading import Brain
from cortexgen.evaluation.registration import NO_REGISTRATION, evaluate_registration
from cortexgen.io import Grid, write_field, write_volume
from cortexgen.io.bids import derivative, read_tsv, transform, write_tsv
from cortexgen.metrics.resampling import Interval, bootstrap_interval
from cortexgen.registration.measures import warped_measures

SUBJECTS = ("sub-01", "sub-02", "sub-03")
SPACING = 6.0


def smooth_field(image: sitk.Image, seed: int, size: float = 10.0) -> sitk.Image:
    """A displacement of up to `size` millimetres, zero at the border."""
    noise = np.random.default_rng(seed).standard_normal((*image.GetSize()[::-1], 3))
    array = gaussian_filter(noise, (2, 2, 2, 0))
    for axis, n in enumerate(array.shape[:3]):
        inside = np.clip((np.minimum(np.arange(n), np.arange(n)[::-1]) - 1) / 4, 0, 1)
        array *= inside.reshape([-1 if k == axis else 1 for k in range(4)])
    field = sitk.GetImageFromArray(array * size / np.abs(array).max(), isVector=True)
    field.CopyInformation(image)
    return field


def warped(image: sitk.Image, field: sitk.Image, labels: bool = False) -> sitk.Image:
    transform = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    return sitk.Resample(image, image, transform, sitk.sitkNearestNeighbor if labels else sitk.sitkLinear, 0)


def write(image: sitk.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """Fixed images that ITK made of the template, and what ITK gets by going four fifths of the way to them."""
    root = tmp_path_factory.mktemp("pairs")
    fixed, itk = root / "fixed", root / "itk"
    template = load_template()
    grid = template.grid.at_spacing(SPACING)
    coarse = template.to(grid)
    write_volume(root / "image.nii", coarse.image, grid)
    write_volume(root / "labels.nii", coarse.labels, grid, np.uint8)
    image, labels = sitk.ReadImage(str(root / "image.nii")), sitk.ReadImage(str(root / "labels.nii"))
    for seed, name in enumerate(SUBJECTS):
        field = smooth_field(image, seed)
        write(sitk.Cast(255 * warped(image, field), sitk.sitkUInt8), derivative(fixed, name, "T1w"))
        write(warped(labels, field, labels=True), derivative(fixed, name, "dseg"))
        near = sitk.Cast(smooth_field(image, seed, 8.0), sitk.sitkVectorFloat32)
        write(near, transform(itk, name, template.name, "T1w"))
        write(warped(image, near), derivative(itk, name, "T1w", desc="warped"))
        write(warped(labels, near, labels=True), derivative(itk, name, "dseg", desc="warped"))
    write_tsv(fixed / "dseg.tsv", [{"index": k, "name": n} for k, n in enumerate(template.classes)])
    return fixed, itk


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(registration, "bootstrap_interval", partial(bootstrap_interval, n=50))


@pytest.fixture
def pairs(made, tmp_path) -> tuple[Path, Path]:
    """A copy, to be damaged."""
    return tuple(Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in made)


def by_pair(evaluation) -> dict[str, dict]:
    return {f"{row['method']}/{row['participant_id']}": row for row in evaluation.rows}


def test_rows_agree_with_simpleitk_and_numpy(made, tmp_path):
    fixed, itk = made
    rows = by_pair(evaluate_registration(fixed, {"itk": itk}, tmp_path))
    assert len(rows) == 6
    names = load_template().classes
    for name in SUBJECTS:
        row = rows[f"itk/{name}"]
        maps = [derivative(fixed, name, "dseg"), derivative(itk, name, "dseg", desc="warped")]
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(*(sitk.ReadImage(str(path), sitk.sitkUInt8) for path in maps))
        present = {int(k) for path in maps for k in np.unique(nib.load(path).dataobj) if k}
        expected = {k: overlap.GetDiceCoefficient(k) for k in present}
        assert len(expected) > 12 and min(expected.values()) < 0.95
        assert all(row[f"dice_{names[k]}"] == pytest.approx(value, abs=1e-6) for k, value in expected.items())
        assert row["dice"] == pytest.approx(np.mean(list(expected.values())), abs=1e-6)

        a = nib.load(derivative(fixed, name, "T1w")).get_fdata()
        a = np.clip(a / np.quantile(a[a > 0], 0.995), 0, 1)
        b = nib.load(derivative(itk, name, "T1w", desc="warped")).get_fdata()
        brain = binary_fill_holes(a > 0.05)
        for prefix, inside in (("", np.ones_like(brain)), ("brain_", brain)):
            assert row[f"{prefix}psnr"] == pytest.approx(-10 * np.log10(np.mean((a - b)[inside] ** 2)), abs=1e-3)
            assert row[f"{prefix}ncc"] == pytest.approx(np.corrcoef(a[inside], b[inside])[0, 1], abs=1e-5)
        assert row["ssim"] > row["brain_ssim"] > 0.5

        field = sitk.ReadImage(str(transform(itk, name, "MNI152NLin2009aSym", "T1w")), sitk.sitkVectorFloat64)
        along = sitk.GetImageFromArray(sitk.GetArrayFromImage(field) @ np.diag([-1.0, -1, 1]), isVector=True)
        along.SetSpacing(field.GetSpacing())  # along the voxels' axes: ITK's filter does without the direction
        determinant = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(along)).transpose(2, 1, 0)
        assert row["brain_sd_log_jacobian"] == pytest.approx(np.log(determinant[brain]).std(ddof=1), rel=1e-4)
        assert row["folded"] == row["brain_folded"] == 0
        before = rows[f"{NO_REGISTRATION}/{name}"]
        assert all(row[key] > before[key] for key in ("dice", "psnr", "ssim", "ncc", "brain_ssim", "brain_ncc"))
        assert row["hd95"] < before["hd95"] and "folded" not in before


def test_doing_nothing_is_the_template_as_it_lies(made, tmp_path):
    fixed, itk = made
    row = by_pair(evaluate_registration(fixed, {"itk": itk}, tmp_path))[f"{NO_REGISTRATION}/sub-01"]
    a = nib.load(derivative(fixed, "sub-01", "T1w")).get_fdata()
    b = nib.load(itk.parent / "image.nii").get_fdata()
    error = np.mean((np.clip(a / np.quantile(a[a > 0], 0.995), 0, 1) - b) ** 2)
    assert row["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_a_fixed_image_elsewhere_is_met_by_an_affine(pairs, tmp_path, monkeypatch):
    """Each fixed image has its own grid: one of them lies turned and shifted, which changes its numbers little."""
    fixed, itk = pairs
    plain = by_pair(evaluate_registration(fixed, {"itk": itk}, tmp_path / "plain"))
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", [8, -5, 6], degrees=True).as_matrix()
    move[:3, 3] = (20, -15, 10)
    for path in [*fixed.glob("sub-02/anat/*.nii.gz"), *itk.glob("sub-02/anat/*warped*.nii.gz")]:
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), move @ image.affine), path)
    monkeypatch.setattr("cortexgen.evaluation.pairs.align", lambda *_: move)  # has its own tests, and takes its time
    found = evaluate_registration(fixed, {"itk": itk}, tmp_path / "moved")
    moved = by_pair(found)
    for name in ("sub-01", "sub-03"):
        assert moved[f"itk/{name}"] == plain[f"itk/{name}"]
    nothing = f"{NO_REGISTRATION}/sub-02"
    assert moved[nothing]["dice"] == pytest.approx(plain[nothing]["dice"], abs=0.06)
    assert moved["itk/sub-02"]["dice"] == pytest.approx(plain["itk/sub-02"]["dice"], abs=1e-6)
    # Its field lies where the image was: the other measures are there, and the reason.
    assert "folded" not in moved["itk/sub-02"]
    assert list(found.problems) == ["itk/sub-02"] and "the field's grid is" in found.problems["itk/sub-02"]


def test_rows_agree_with_those_that_register_writes(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "fixed", ignore=shutil.ignore_patterns("sub-02", "sub-03"))
    register(tmp_path / "fixed", tmp_path / "fields")
    expected = read_tsv(tmp_path / "fields/registration.tsv")[0]
    rows = evaluate_registration(tmp_path / "fixed", {"ours": tmp_path / "fields"}, tmp_path / "out").rows
    assert [row["method"] for row in rows] == [NO_REGISTRATION, "ours"]
    for row, suffix in zip(rows, ("_before", ""), strict=True):
        for key in ("psnr", "ssim", "dice"):
            assert row[key] == pytest.approx(expected[key + suffix], rel=1e-5)
    assert rows[1]["dice_Hippocampus"] == pytest.approx(expected["dice_Hippocampus"], rel=1e-5)


def measure(fixed: Brain, warped: Brain, displacement, classes):
    labels = None if fixed.labels is None or warped.labels is None else (fixed.labels, warped.labels)
    return warped_measures(fixed.image, warped.image, displacement, labels, fixed.grid.spacing, classes)


GRID = Grid((12, 14, 16), np.array([[0, 0, 2.0, 0], [0, 3, 0, 0], [4, 0, 0, 0], [0, 0, 0, 1]]))


def _warped(image: torch.Tensor, labels: torch.Tensor | None = None) -> Brain:
    return Brain("sub-01", image, labels, GRID)


def _block(shift: int = 0) -> torch.Tensor:
    volume = torch.zeros(1, *GRID.shape)
    volume[:, 3:9, 3 + shift : 10 + shift, 4:12] = 1
    return volume


def test_shift_of_a_block_has_its_hausdorff_distance_and_dice():
    labels = _block().long() * 7
    fixed = Brain("sub-01", 0.5 * _block(), labels, GRID)
    row = measure(fixed, _warped(0.5 * _block(2), _block(2).long() * 7), None, {0: "air", 7: "block", 9: "other"})
    assert row["hd95_block"] == row["hd95"] == 6 and row["dice_block"] == row["dice"] == pytest.approx(5 / 7)
    assert row["dice_other"] is None and row["hd95_other"] is None and "dice_air" not in row and "folded" not in row
    gone = measure(fixed, _warped(0.5 * _block(2), 0 * labels), None, {7: "block"})
    assert gone["dice"] == 0 and gone["hd95"] is None


def test_inside_the_brain_holes_count_and_the_background_does_not():
    image = 0.5 * _block()
    image[:, 5, 5, 7] = 0  # a hole
    other = image.clone()
    other[:, 5, 5, 7] = 0.5
    other[:, :3] = 0.5
    row = measure(Brain("sub-01", image, None, GRID), _warped(other), None, None)
    assert row["brain_psnr"] == pytest.approx(-10 * math.log10(0.25 / (6 * 7 * 8)))
    assert row["psnr"] == pytest.approx(-10 * math.log10(0.25 * (1 + 3 * 14 * 16) / (12 * 14 * 16)))
    assert "dice" not in row


def test_one_stray_voxel_folds_four_cubes_that_count_in_the_brain_if_they_lie_there():
    field = torch.zeros(3, *GRID.shape)
    field[1, 1, 1, 1] = 1.5  # outside the block
    brain = Brain("sub-01", 0.5 * _block(), None, GRID)
    row = measure(brain, _warped(brain.image), field, None)
    assert row["folded"] == 4 / (11 * 13 * 15) and row["brain_folded"] == 0 and row["brain_sd_log_jacobian"] == 0
    field[1, 3, 6, 4] = 1.5  # on the block's edge: one of the four begins in it
    row = measure(brain, _warped(brain.image), field, None)
    assert row["folded"] == 8 / (11 * 13 * 15) and row["brain_folded"] == 1 / (6 * 7 * 8)
    assert row["psnr"] == math.inf and row["brain_sd_log_jacobian"] > 0


def test_a_killed_run_goes_on_and_a_changed_file_is_measured_again(pairs, tmp_path, monkeypatch):
    fixed, itk = pairs
    calls: list[str] = []

    pair = registration._pair

    def counted(pairs, method, scan, fixed):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(scan.name)
        return pair(pairs, method, scan, fixed)

    monkeypatch.setattr(registration, "_pair", counted)
    limit = 3
    with pytest.raises(KeyboardInterrupt):
        evaluate_registration(fixed, {"itk": itk}, tmp_path / "out")
    limit = 99
    second = evaluate_registration(fixed, {"itk": itk}, tmp_path / "out")
    assert calls == ["sub-01", "sub-01", "sub-02", "sub-02", "sub-03", "sub-03"]
    fresh = evaluate_registration(fixed, {"itk": itk}, tmp_path / "fresh")
    assert second.rows == fresh.rows and second.notes == fresh.notes
    for name, table in second.tables.items():
        assert (tmp_path / f"out/tables/{name}.csv").read_bytes() == (
            tmp_path / f"fresh/tables/{name}.csv"
        ).read_bytes()
        assert table.to_json() == fresh.tables[name].to_json()

    calls.clear()
    os.utime(derivative(itk, "sub-02", "T1w", desc="warped"), (1, 1))
    shutil.copy(derivative(fixed, "sub-02", "dseg"), derivative(fixed, "sub-03", "dseg"))
    third = by_pair(evaluate_registration(fixed, {"itk": itk}, tmp_path / "out"))
    assert calls == ["sub-02", "sub-03", "sub-03"]
    assert third["itk/sub-03"]["dice"] < by_pair(fresh)["itk/sub-03"]["dice"] - 0.1
    (tmp_path / "out/registration/itk/sub-01.json").write_text("{")
    assert by_pair(evaluate_registration(fixed, {"itk": itk}, tmp_path / "out")) == third


def test_what_is_wrong_with_a_pair_is_said_and_the_others_go_on(pairs, tmp_path):
    fixed, itk = pairs
    other = shutil.copytree(itk, tmp_path / "other")
    truncated = derivative(itk, "sub-01", "T1w", desc="warped")
    truncated.write_bytes(truncated.read_bytes()[:500])
    labels = nib.load(derivative(itk, "sub-02", "dseg", desc="warped"))
    wrong = np.asarray(labels.dataobj).copy()
    wrong[0, 0, 0] = 44
    nib.save(nib.Nifti1Image(wrong, labels.affine), derivative(itk, "sub-02", "dseg", desc="warped"))
    shutil.rmtree(other / "sub-01")
    shutil.copytree(other / "sub-03", other / "sub-99")
    for path in (other / "sub-99/anat").iterdir():
        path.rename(path.with_name(path.name.replace("sub-03", "sub-99")))
    image = nib.load(derivative(fixed, "sub-03", "T1w"))
    nib.save(
        nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), derivative(fixed, "sub-03", "T1w")
    )
    for _ in range(2):  # a second run says the same
        found = evaluate_registration(fixed, {"itk": itk, "other": other}, tmp_path / "out")
        assert set(by_pair(found)) == {f"{NO_REGISTRATION}/sub-01", f"{NO_REGISTRATION}/sub-02", "other/sub-02"}
        assert set(found.problems) == {"itk/sub-01", "itk/sub-02", "other/sub-01", "sub-03"}
    assert "truncated" in found.problems["itk/sub-01"] and "unknown label 44" in found.problems["itk/sub-02"]
    assert f"{other}: no image of sub-01" in found.problems["other/sub-01"] and "NaN" in found.problems["sub-03"]
    assert "1 images of other have no fixed image (sub-99) and are left out." in found.notes
    listed = {
        (row["method"], row["participant_id"]): row["problem"] for row in found.tables["registration_subjects"].rows
    }
    assert (
        listed["itk", "sub-01"] == found.problems["itk/sub-01"] and listed[None, "sub-03"] == found.problems["sub-03"]
    )
    assert any("different images" in note for note in found.tables["registration"].notes)


def test_tables(made, tmp_path):
    fixed, itk = made
    found = evaluate_registration(fixed, {"itk": itk, "again": itk}, tmp_path)
    assert [row["method"] for row in found.tables["registration"].rows] == [
        NO_REGISTRATION,
        "itk",
        "again",
        "Nadeem et al.",
    ]
    nothing, first, second, published = found.tables["registration"].rows
    assert {**first, "method": ""} == {**second, "method": ""} and first["n"] == 3 and published["n"] is None
    assert (published["psnr"], published["ssim"], published["dice"]) == (2.418, 0.163, None)
    dices = [row["dice"] for row in found.rows if row["method"] == "itk"]
    assert isinstance(first["dice"], Interval) and first["dice"].value == pytest.approx(np.mean(dices))
    assert min(dices) <= first["dice"].low < first["dice"].high <= max(dices) + 1e-9
    assert nothing["folded"] is None and first["folded"] == Interval(0, 0, 0)
    table = found.tables["registration_dice"].rows
    assert [row["class"] for row in table] == [*load_template().classes[1:], "mean"]
    assert table[-1]["itk"] == first["dice"]
    hippocampus = np.mean([row["hd95_Hippocampus"] for row in found.rows if row["method"] == NO_REGISTRATION])
    assert found.tables["registration_hd95"].rows[13][NO_REGISTRATION].value == pytest.approx(hippocampus)
    assert len(found.tables["registration_subjects"].rows) == 9 and not found.problems
    assert len(list((tmp_path / "tables").iterdir())) == 16
    kept = json.loads((tmp_path / "registration/itk/sub-01.json").read_text())
    assert {"participant_id": "sub-01", "method": "itk", **kept["row"]} == found.rows[3]


def test_labels_of_unknown_classes_are_compared_but_not_with_the_template(pairs, tmp_path):
    fixed, itk = pairs
    (fixed / "dseg.tsv").unlink()
    found = evaluate_registration(fixed, {"itk": itk}, tmp_path)
    rows = by_pair(found)
    assert "dice" not in rows[f"{NO_REGISTRATION}/sub-01"] and rows["itk/sub-01"]["dice_label-14"] > 0.3
    assert found.classes[0] == "label-1" and found.classes[-1] == "label-17"  # in order of the numbers
    assert any("isn't there to say" in note for note in found.notes)
    assert [c.name for c in found.tables["registration_dice"].columns] == ["class", "itk"]


def test_images_without_labels_or_fields_and_another_moving_image(pairs, tmp_path):
    fixed, itk = pairs
    for path in [*itk.glob("*/*/*xfm*"), *itk.glob("*/*/*dseg*")]:
        path.unlink()
    image, labels = itk.parent / "moving.nii.gz", itk.parent / "moving_dseg.nii.gz"
    shutil.copy(derivative(fixed, "sub-01", "T1w"), image)
    shutil.copy(derivative(fixed, "sub-01", "dseg"), labels)
    found = evaluate_registration(fixed, {"itk": itk}, tmp_path, Sources(moving=str(image), moving_labels=labels))
    rows = by_pair(found)
    same = rows[f"{NO_REGISTRATION}/sub-01"]
    assert same["dice"] == 1 and same["hd95"] == 0 and same["psnr"] > 100
    assert rows[f"{NO_REGISTRATION}/sub-02"]["dice"] < 0.9
    assert "dice" not in rows["itk/sub-02"] and "folded" not in rows["itk/sub-02"]
    assert "folded" not in [c.name for c in found.tables["registration"].columns]


def test_intensities_beyond_one_are_scaled_and_said(pairs, tmp_path):
    fixed, itk = pairs
    path = derivative(itk, "sub-03", "T1w", desc="warped")
    image = nib.load(path)
    nib.save(nib.Nifti1Image(1000 * np.asarray(image.dataobj), image.affine), path)
    found = evaluate_registration(fixed, {"itk": itk}, tmp_path)
    assert by_pair(found)["itk/sub-03"]["psnr"] > 35
    assert any(str(itk) in note and "1 of 3 brains (sub-03): intensities above 255" in note for note in found.notes)


@pytest.mark.parametrize("case", ["method", "no match", "no results", "nothing"])
def test_what_stops_an_evaluation(pairs, tmp_path, case):
    fixed, itk = pairs
    results, expected = {"itk": itk}, {"method": r"can't be called '\.\.'", "no match": "none of its 3 images"}
    expected |= {
        "no results": "no NIfTI image",
        "nothing": "could be compared",
    }
    if case == "method":
        results = {"..": itk}
    elif case == "no match":
        for path in [*itk.iterdir()]:
            path.rename(itk / f"{path.name}9")
    elif case == "no results":
        shutil.rmtree(itk / "sub-01"), shutil.rmtree(itk / "sub-02"), shutil.rmtree(itk / "sub-03")
    else:
        for path in itk.glob("*/*/*T1w.nii.gz"):
            if "warped" in path.name:
                path.write_bytes(b"no image")
    with pytest.raises(UserError, match=expected[case]):
        evaluate_registration(fixed, results, tmp_path / "out")


def test_two_fields_or_two_images_of_one_subject_are_its_problem(pairs, tmp_path):
    fixed, itk = pairs
    write_field(transform(itk, "sub-01", "elsewhere", "T1w"), torch.zeros(3, *GRID.shape), GRID)
    shutil.copy(
        derivative(itk, "sub-02", "T1w", desc="warped"), derivative(itk, "sub-02", "T1w", run="2", desc="warped")
    )
    shutil.copy(derivative(fixed, "sub-03", "T1w"), derivative(fixed, "sub-03", "T1w", run="2"))
    found = evaluate_registration(fixed, {"itk": itk}, tmp_path / "out")
    rows = by_pair(found)
    assert set(found.problems) == {"itk/sub-01", "itk/sub-02", "sub-03"}
    assert "2 files are fields of sub-01" in found.problems["itk/sub-01"] and "folded" not in rows["itk/sub-01"]
    assert all("2 files fit" in found.problems[name] for name in ("itk/sub-02", "sub-03"))
    assert rows["itk/sub-01"]["psnr"] > 10 and f"{NO_REGISTRATION}/sub-02" in rows and "itk/sub-02" not in rows


def test_any_error_of_one_pair_is_its_problem(pairs, tmp_path, monkeypatch):
    pair = registration._pair

    def fails(pairs, method, scan, fixed):
        if scan.name == "sub-02":
            raise MemoryError("too\nlarge")
        return pair(pairs, method, scan, fixed)

    monkeypatch.setattr(registration, "_pair", fails)
    found = evaluate_registration(*pairs[:1], {"itk": pairs[1]}, tmp_path / "out")
    assert found.problems["itk/sub-02"] == "MemoryError: too large"
    assert {name.rpartition("/")[2] for name in by_pair(found)} == {"sub-01", "sub-03"}
