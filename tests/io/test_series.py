import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from cortexgen.io import Grid, read_grid, write_series, write_volume

RAS = np.eye(4)
RAS[:3, :3] = Rotation.from_euler("xyz", [7, 12, -9], degrees=True).as_matrix() @ np.diag([0.9, 1.2, 2.5])
RAS[:3, 3] = (-40, -55, 20)


def given(path, codes, oblique=True):
    """A file of 6 x 7 x 8 RAS voxels in that orientation, and its grid."""
    affine = RAS if oblique else np.diag([0.9, 1.2, 2.5, 1.0])
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    shape = np.array([6, 7, 8])[np.argsort(turn[:, 0])]
    image = nib.Nifti1Image(np.zeros(shape, dtype=np.float32), affine @ inv_ornt_aff(turn, (6, 7, 8)))
    nib.save(image, path)
    return nib.load(path), read_grid(path)


def frames(count=5):
    return torch.randn(count, 8, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("oblique", [True, False])
@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SLA"])
def test_each_frame_lies_where_its_volume_does(tmp_path, codes, oblique):
    first, grid = given(tmp_path / "given.nii", codes, oblique)
    volumes = frames()
    write_series(tmp_path / "series.nii.gz", volumes, grid)
    series = nib.load(tmp_path / "series.nii.gz")

    assert series.shape == (*first.shape, 5) and series.get_data_dtype() == np.float32
    assert "".join(nib.aff2axcodes(series.affine)) == codes
    np.testing.assert_allclose(series.affine, first.affine, atol=1e-5)
    np.testing.assert_allclose(series.header.get_zooms(), (*first.header.get_zooms(), 1), rtol=1e-6)
    assert series.header.get_xyzt_units() == ("mm", "sec")

    values = np.asarray(series.dataobj)
    for index in np.random.default_rng(1).integers(0, values.shape, (20, 4)):
        point = series.affine @ np.append(index[:3], 1)
        d, h, w = np.rint(np.linalg.inv(grid.affine) @ point)[:3].astype(int)
        assert values[tuple(index)] == np.float32(volumes[index[3], d, h, w])
    write_volume(tmp_path / "third.nii.gz", volumes[2:3], grid)
    np.testing.assert_array_equal(nib.load(tmp_path / "third.nii.gz").dataobj, values[..., 2])


def test_itk_finds_frames_and_voxels_at_the_same_place(tmp_path):
    _, grid = given(tmp_path / "given.nii", "LAS")
    volumes = frames()
    write_series(tmp_path / "series.nii.gz", volumes, grid)
    series = sitk.ReadImage(str(tmp_path / "series.nii.gz"))
    assert series.GetSize() == (6, 7, 8, 5) and series.GetSpacing()[3] == 1
    for k, d, h, w in ((0, 0, 0, 0), (3, 7, 2, 4), (4, 1, 6, 5)):
        x, y, z, _ = grid.affine @ np.array([d, h, w, 1.0])
        index = series.TransformPhysicalPointToIndex((-x, -y, z, float(k)))
        assert series.GetPixel(*index) == np.float32(volumes[k, d, h, w])


def test_two_writes_give_the_same_bytes_and_leave_nothing_else(tmp_path):
    _, grid = given(tmp_path / "given.nii", "LAS")
    for name in ("a", "b"):
        write_series(tmp_path / name / "series.nii.gz", frames(1), grid)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["series.nii.gz"]
    assert (tmp_path / "a/series.nii.gz").read_bytes() == (tmp_path / "b/series.nii.gz").read_bytes()
    assert nib.load(tmp_path / "a/series.nii.gz").shape == (6, 7, 8, 1)


@pytest.mark.parametrize("shape", [(8, 7, 6), (0, 8, 7, 6), (5, 6, 7, 8), (2, 1, 8, 7, 6)])
def test_frames_of_another_shape_are_refused(tmp_path, shape):
    grid = Grid((8, 7, 6), np.eye(4)[[2, 1, 0, 3]])
    with pytest.raises(ValueError, match=r"expected frames \[N, 8, 7, 6\]"):
        write_series(tmp_path / "series.nii.gz", torch.zeros(shape), grid)
    assert not list(tmp_path.iterdir())
