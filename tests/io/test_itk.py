"""Our files against SimpleITK, on grids that are oblique, anisotropic and differently oriented."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cortexgen.errors import UserError
from cortexgen.io import STEP, Grid, in_steps, read_field, write_field, write_volume
from cortexgen.spatial import compose, integrate, warp

SHAPE = (22, 26, 30)


def oblique(codes):
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [10, -16, 23], degrees=True).as_matrix()
    affine[:3, :3] = turn @ np.fliplr(np.eye(3)) @ np.diag([2.2, 0.9, 1.3])
    affine[:3, 3] = (12, -40, 31)
    return Grid(SHAPE, affine, codes)


def smooth(seed, channels, sigma, peak):
    values = np.random.default_rng(seed).standard_normal((channels, *SHAPE))
    values = gaussian_filter(values, (0, sigma, sigma, sigma))
    return torch.from_numpy(peak * values / np.abs(values).max()).float()


def read_vectors(path):
    return sitk.ReadImage(str(path), sitk.sitkVectorFloat64)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "PIR", "SAR"])
def test_simpleitk_warps_as_we_do(tmp_path, codes):
    grid, moving, field = oblique(codes), smooth(0, 1, 3, 1.0), smooth(1, 3, 4, 3.0)
    write_volume(tmp_path / "moving.nii.gz", moving, grid)
    write_field(tmp_path / "xfm.nii.gz", field, grid)
    ours = warp(moving[None], field[None])[0]
    write_volume(tmp_path / "ours.nii.gz", ours, grid)  # for its order of axes

    image = sitk.ReadImage(str(tmp_path / "moving.nii.gz"), sitk.sitkFloat64)
    transform = sitk.DisplacementFieldTransform(read_vectors(tmp_path / "xfm.nii.gz"))
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, image, transform, sitk.sitkLinear, 0.0))
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ours.nii.gz")))
    inside = (slice(4, -4),) * 3
    spread = float(moving.max() - moving.min())
    assert np.abs(theirs - expected)[inside].max() < 1e-5 * spread
    still = sitk.GetArrayFromImage(image)
    assert np.abs(still - expected)[inside].max() > 0.05 * spread  # the field does something


def test_a_field_in_steps_is_the_one_that_is_read(tmp_path):
    grid, field = oblique("LAS"), smooth(1, 3, 4, 3.0)
    write_field(tmp_path / "full.nii.gz", field, grid)
    write_field(tmp_path / "xfm.nii.gz", field, grid, STEP)
    full, found = (nib.load(tmp_path / f"{name}.nii.gz").get_fdata() for name in ("full", "xfm"))
    assert np.array_equal(found / STEP, np.rint(found / STEP))
    assert 0.4 * STEP < np.abs(found - full).max() <= 0.5 * STEP + 1e-6
    read, _ = read_field(tmp_path / "xfm.nii.gz")
    torch.testing.assert_close(read, in_steps(field[None], grid)[0], atol=2e-6, rtol=0)


def test_the_file_has_itks_layout(tmp_path):
    grid = oblique("LAS")
    write_field(tmp_path / "xfm.nii.gz", smooth(1, 3, 4, 3.0), grid)
    image = nib.load(tmp_path / "xfm.nii.gz")
    assert image.shape == (30, 26, 22, 1, 3)
    assert image.header.get_intent()[0] == "vector" and image.get_data_dtype() == np.float32
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S")


def test_one_voxel_towards_the_right_is_minus_its_width_in_lps(tmp_path):
    grid = Grid((3, 4, 5), np.array([[0, 0, 1.5, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]]), "LPS")
    field = torch.tensor([3.0, 2.0, 1.0]).view(3, 1, 1, 1).expand(3, 3, 4, 5)
    write_field(tmp_path / "xfm.nii", field, grid)
    vectors = nib.load(tmp_path / "xfm.nii").get_fdata()
    np.testing.assert_allclose(vectors.reshape(-1, 3), np.tile([-1.5, -2, 6], (60, 1)), atol=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
def test_a_field_comes_back(tmp_path, codes):
    grid, field = oblique(codes), smooth(1, 3, 3, 6.0)
    write_field(tmp_path / "xfm.nii.gz", field, grid)
    back, found = read_field(tmp_path / "xfm.nii.gz")
    assert back.dtype == torch.float32 and (back - field).abs().max() < 1e-5
    assert found.matches(grid, 1e-4) and found.codes == codes


def test_a_field_that_simpleitk_wrote_warps_as_it_does_there(tmp_path):
    moving = smooth(0, 1, 3, 1.0)
    write_volume(tmp_path / "moving.nii.gz", moving, oblique("LPS"))
    image = sitk.ReadImage(str(tmp_path / "moving.nii.gz"), sitk.sitkFloat64)
    vectors = np.moveaxis(smooth(1, 3, 4, 4.0).numpy().astype(float), 0, -1)  # any smooth millimetres do
    transform_image = sitk.GetImageFromArray(vectors, isVector=True)
    transform_image.CopyInformation(image)
    sitk.WriteImage(transform_image, str(tmp_path / "itk.nii.gz"))
    field, grid = read_field(tmp_path / "itk.nii.gz")
    assert grid.matches(oblique("LPS"), 1e-3)

    write_volume(tmp_path / "ours.nii.gz", warp(moving[None], field[None])[0], grid)
    transform = sitk.DisplacementFieldTransform(transform_image)
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, image, transform, sitk.sitkLinear, 0.0))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ours.nii.gz")))
    assert np.abs(theirs - ours)[(slice(5, -5),) * 3].max() < 1e-5 * float(moving.max() - moving.min())


def test_a_flow_and_its_inverse_cancel_also_after_their_files(tmp_path):
    grid, velocity = oblique("LAS"), smooth(2, 3, 3, 3.0)[None]
    there, back = integrate(velocity), integrate(-velocity)
    inside = (..., *(slice(5, -5),) * 3)
    for name, field in (("there", there), ("back", back)):
        write_field(tmp_path / f"{name}.nii.gz", field[0], grid)
    files = [read_field(tmp_path / f"{name}.nii.gz")[0][None] for name in ("there", "back")]
    for a, b in ((there, back), (back, there), files, files[::-1]):
        rest = compose(a, b)[inside].norm(dim=1)
        assert rest.mean() < 0.02 and rest.quantile(0.999) < 0.3
    assert there[inside].norm(dim=1).mean() > 0.5


def test_simpleitk_finds_the_two_files_inverse(tmp_path):
    grid, velocity = oblique("LAS"), smooth(2, 3, 3, 3.0)[None]
    chain = sitk.CompositeTransform(3)
    for name, sign in (("there", 1), ("back", -1)):
        write_field(tmp_path / f"{name}.nii.gz", integrate(sign * velocity)[0], grid)
        chain.AddTransform(sitk.DisplacementFieldTransform(read_vectors(tmp_path / f"{name}.nii.gz")))
    size = np.array(read_vectors(tmp_path / "there.nii.gz").GetSize())
    reference = read_vectors(tmp_path / "there.nii.gz")
    for index in np.random.default_rng(0).integers(6, size - 6, (50, 3)):
        point = reference.TransformContinuousIndexToPhysicalPoint(index.astype(float).tolist())
        assert np.linalg.norm(np.subtract(chain.TransformPoint(point), point)) < 0.3


def test_two_writes_give_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_field(tmp_path / name, smooth(1, 3, 4, 3.0), oblique("LAS"))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_field_with_holes_is_an_error_that_names_the_file(tmp_path):
    field = smooth(1, 3, 4, 3.0)
    field[1, 2, 3, 4] = torch.nan
    write_field(tmp_path / "sub-09_xfm.nii.gz", field, oblique("RAS"))
    with pytest.raises(UserError, match=r"sub-09_xfm\.nii\.gz: .*NaN"):
        read_field(tmp_path / "sub-09_xfm.nii.gz")
