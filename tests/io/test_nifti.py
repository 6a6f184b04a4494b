from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform
from scipy.spatial.transform import Rotation

from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, read_grid, read_volume, write_volume

ORIENTATIONS = ["".join(c) for p in permutations(("LR", "PA", "IS")) for c in product(*p)]
SPACING = np.array([0.9, 1.2, 2.5])
RAS = np.eye(4)
RAS[:3, :3] = Rotation.from_euler("xyz", [7, 12, -9], degrees=True).as_matrix() @ np.diag(SPACING)
RAS[:3, 3] = (-40, -55, 20)


def oriented(codes):
    """An affine of that orientation over a box of 6 x 7 x 8 RAS voxels, and the array's shape."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    shape = tuple(int(n) for n in np.array([6, 7, 8])[np.argsort(turn[:, 0])])
    return RAS @ inv_ornt_aff(turn, (6, 7, 8)), shape


def save(path, array, affine):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_values_stay_at_their_place_in_the_world_and_go_back_as_they_were(tmp_path, codes):
    affine, shape = oriented(codes)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    given = save(tmp_path / "given.nii", array, affine)
    volume, grid = read_volume(given)

    assert volume.dtype == torch.float32 and volume.shape == (1, *grid.shape) == (1, 8, 7, 6)
    assert nib.aff2axcodes(grid.affine) == ("S", "A", "R") and grid.codes == codes
    for index in np.random.default_rng(1).integers(0, shape, (10, 3)):
        point = affine @ np.append(index, 1)
        there = np.linalg.inv(grid.affine) @ point
        np.testing.assert_allclose(there, np.rint(there), atol=1e-4)
        assert volume[(0, *np.rint(there[:3]).astype(int))] == array[tuple(index)]

    header_only = read_grid(given)
    assert header_only.matches(grid, 1e-9) and header_only.codes == codes
    write_volume(tmp_path / "back.nii", volume, grid)
    first, back = nib.load(given), nib.load(tmp_path / "back.nii")
    assert first.dataobj[:].tobytes() == back.dataobj[:].tobytes() and back.shape == shape
    np.testing.assert_allclose(back.affine, first.affine, atol=1e-5)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


def test_labels_are_whole_numbers_and_trailing_axes_are_dropped(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5, 1)
    labels, _ = read_volume(save(tmp_path / "l.nii.gz", array, np.eye(4)), labels=True)
    assert labels.dtype == torch.int64 and labels.shape == (1, 5, 4, 3)
    np.testing.assert_array_equal(labels[0].permute(2, 1, 0), array[..., 0])


def test_uint8_is_stored_with_a_scale_that_other_readers_apply(tmp_path):
    values = torch.rand(1, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    grid = Grid((4, 5, 6), oriented("SAR")[0], "RAS")
    write_volume(tmp_path / "v.nii.gz", values, grid, np.uint8)
    image = nib.load(tmp_path / "v.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_fdata(), values[0].clamp(0, 1).permute(2, 1, 0), atol=0.5 / 255 + 1e-6)
    write_volume(tmp_path / "l.nii.gz", torch.arange(120).view(1, 4, 5, 6), grid, np.uint8)
    np.testing.assert_array_equal(nib.load(tmp_path / "l.nii.gz").get_fdata().T.ravel(), np.arange(120))


def test_two_writes_give_the_same_bytes(tmp_path):
    volume, grid = torch.rand(1, 8, 7, 6), Grid((8, 7, 6), oriented("SAR")[0])
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, volume, grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def missing(path):
    return path


def not_an_image(path):
    path.write_text("not an image")
    return path


def truncated(path):
    save(path, np.random.default_rng(0).standard_normal((20, 20, 20)), RAS)
    path.write_bytes(path.read_bytes()[:-9000])
    return path


def four_dimensional(path):
    return save(path, np.random.default_rng(0).standard_normal((4, 5, 6, 2)), RAS)


def flat(path):
    return save(path, np.random.default_rng(0).standard_normal((4, 5)), RAS)


def with_nan(path):
    array = np.random.default_rng(0).standard_normal((4, 5, 6))
    array[1, 2, 3:5] = np.nan
    return save(path, array, RAS)


def constant(path):
    return save(path, np.full((4, 5, 6), 7.0), RAS)


def zero_affine(path):
    image = nib.Nifti1Image(np.random.default_rng(0).standard_normal((4, 5, 6)), None)
    image.header.set_sform(np.diag([0.0, 0, 0, 1]), code=1)
    nib.save(image, path)
    data = bytearray(path.read_bytes())
    data[280:328] = bytes(48)  # srow_x, srow_y, srow_z
    path.write_bytes(data)
    return path


def fractions(path):
    return save(path, np.random.default_rng(0).standard_normal((4, 5, 6)), RAS)


FAULTS = [
    (missing, "no such file", "nii.gz"),
    (not_an_image, "not a readable NIfTI", "nii.gz"),
    (truncated, "truncated", "nii.gz"),
    (truncated, "truncated", "nii"),
    (four_dimensional, "3D volume, found shape 4 x 5 x 6 x 2", "nii.gz"),
    (flat, "3D volume, found shape 4 x 5", "nii.gz"),
    (with_nan, "2 voxels are NaN", "nii.gz"),
    (constant, "every voxel is 7", "nii.gz"),
    (zero_affine, "no valid affine", "nii"),
    (fractions, "whole numbers", "nii.gz"),
]


@pytest.mark.parametrize("fault, text, ending", FAULTS, ids=[f"{f.__name__}.{e}" for f, _, e in FAULTS])
def test_a_faulty_file_is_one_line_that_names_it(tmp_path, fault, text, ending):
    path = fault(tmp_path / f"sub-07_T1w.{ending}")
    with pytest.raises(UserError) as error:
        read_volume(path, labels=fault is fractions)
    assert str(error.value).startswith(f"{path}: ") and text in str(error.value)


@pytest.mark.parametrize("fault", [missing, not_an_image, four_dimensional, zero_affine])
def test_faults_of_the_header_are_found_without_the_voxels(tmp_path, fault):
    path = fault(tmp_path / "sub-07_T1w.nii")
    with pytest.raises(UserError, match=r"sub-07_T1w\.nii: "):
        read_grid(path)


@pytest.mark.parametrize("fault", [missing, not_an_image, four_dimensional, fractions])
def test_what_is_no_field_is_an_error_that_names_the_file(tmp_path, fault):
    with pytest.raises(UserError, match=r"sub-07_xfm\.nii\.gz: "):
        read_field(fault(tmp_path / "sub-07_xfm.nii.gz"))
