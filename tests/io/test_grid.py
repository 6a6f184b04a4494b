import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.header import file_affine
from cortexgen.io.nifti import to_memory

ORDER = np.fliplr(np.eye(3))  # memory axes (D, H, W) are world axes (z, y, x)


def axial(shape, spacing, origin):
    """A grid without rotation; `spacing` and `origin` in the order of the axes D, H, W."""
    affine = np.eye(4)
    affine[:3, :3] = ORDER @ np.diag(spacing)
    affine[:3, 3] = origin[::-1]
    return Grid(shape, affine)


MNI_2MM = axial((95, 117, 99), (2.0, 2.0, 2.0), (-72.0, -134.0, -98.0))
TURN = Rotation.from_euler("xyz", [9, -14, 21], degrees=True).as_matrix()
OBLIQUE = Grid(
    (7, 10, 12), np.vstack([np.c_[TURN @ ORDER @ np.diag([3, 0.9, 1.1]), [5, -30, 11]], [0, 0, 0, 1]]), "LPI"
)


def world(grid, index):
    return (grid.affine @ np.append(index, 1.0))[:3]


def centre(grid):
    return world(grid, (np.array(grid.shape) - 1) / 2)


def test_spacing_and_volume_of_an_oblique_grid():
    np.testing.assert_allclose(OBLIQUE.spacing, (3, 0.9, 1.1))
    assert OBLIQUE.voxel_volume == pytest.approx(3 * 0.9 * 1.1)
    assert OBLIQUE.torch_affine.dtype == torch.float64
    np.testing.assert_array_equal(OBLIQUE.torch_affine, OBLIQUE.affine)


@pytest.mark.parametrize("grid", [MNI_2MM, OBLIQUE, axial((8, 9, 10), (1.3, 1.0, 0.7), (4, 5, 6))])
@pytest.mark.parametrize("spacing", [0.5, 1.0, 3.0, 4.0, 7.7])
def test_at_spacing_is_odd_and_isotropic_on_the_same_centre_and_axes_and_covers_the_box(grid, spacing):
    new = grid.at_spacing(spacing)
    assert all(n % 2 for n in new.shape)
    np.testing.assert_allclose(new.spacing, [spacing] * 3)
    np.testing.assert_allclose(centre(new), centre(grid), atol=1e-9)
    for axis in range(3):
        np.testing.assert_allclose(new.affine[:3, axis] / spacing, grid.affine[:3, axis] / grid.spacing[axis])
    extent, old = ([(n - 1) * s for n, s in zip(g.shape, g.spacing, strict=True)] for g in (new, grid))
    assert all(o <= n + 0.002 * spacing and n < o + 2 * spacing for n, o in zip(extent, old, strict=True))
    assert new.codes == grid.codes


@pytest.mark.parametrize("spacing, shape", [(1, (189, 233, 197)), (2, (95, 117, 99)), (4, (49, 59, 51))])
def test_the_mni_grid_stays_symmetric_at_any_spacing(spacing, shape):
    new = MNI_2MM.at_spacing(spacing)
    assert new.shape == shape and new.is_symmetric()
    assert MNI_2MM.at_spacing(2).matches(MNI_2MM)


def test_symmetry_is_about_world_x_and_needs_an_unturned_w_axis():
    assert MNI_2MM.is_symmetric()
    assert axial((4, 5, 6), (2, 2, 2), (0, 0, -5)).is_symmetric()
    assert not axial((4, 5, 6), (2, 2, 2), (0, 0, -4)).is_symmetric()
    turned = MNI_2MM.affine.copy()
    turned[:3, :3] = Rotation.from_euler("z", 3, degrees=True).as_matrix() @ turned[:3, :3]
    assert not Grid(MNI_2MM.shape, turned).is_symmetric()


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_coarse_keeps_every_nth_voxel_where_it_was(factor):
    coarse = OBLIQUE.coarse(factor)
    kept = [range(0, n, factor) for n in OBLIQUE.shape]
    assert coarse.shape == tuple(map(len, kept))
    for index in [(0, 0, 0), tuple(n - 1 for n in coarse.shape)]:
        np.testing.assert_allclose(world(coarse, index), world(OBLIQUE, np.array(index) * factor), atol=1e-9)


def test_box_keeps_its_voxels_where_they_were():
    box = OBLIQUE.box((1, 2, 3), (4, 8, 9))
    assert box.shape == (4, 7, 7)
    np.testing.assert_allclose(world(box, (3, 6, 6)), world(OBLIQUE, (4, 8, 9)))
    assert box.codes == OBLIQUE.codes
    np.testing.assert_allclose(OBLIQUE.affine[:3, 3], [5, -30, 11])  # the original is left alone


def test_window_is_central_and_may_reach_beyond_the_grid():
    window = OBLIQUE.window((3, 20, 6))
    assert window.shape == (3, 20, 6)
    np.testing.assert_allclose(centre(window), centre(OBLIQUE), atol=1e-9)
    np.testing.assert_allclose(world(window, (0, 5, 0)), world(OBLIQUE, (2, 0, 3)), atol=1e-9)


def test_matches_looks_at_the_corners():
    assert OBLIQUE.matches(Grid(OBLIQUE.shape, OBLIQUE.affine + 1e-4, "RAS"))
    assert not OBLIQUE.matches(Grid((7, 10, 11), OBLIQUE.affine))
    stretched = OBLIQUE.affine.copy()
    stretched[:3, 2] *= 1.002  # 0.02 mm at the far end of 11 steps
    assert not OBLIQUE.matches(Grid(OBLIQUE.shape, stretched))
    assert OBLIQUE.matches(Grid(OBLIQUE.shape, stretched), tolerance=0.1)


def test_to_dict_goes_through_json_and_back():
    back = Grid.from_dict(json.loads(json.dumps(OBLIQUE.to_dict())))
    assert back.shape == OBLIQUE.shape and back.codes == "LPI"
    np.testing.assert_array_equal(back.affine, OBLIQUE.affine)
    assert back.affine.dtype == np.float64


def test_text_names_size_spacing_and_origin():
    assert str(MNI_2MM) == "95 x 117 x 99 voxels (D x H x W) of 2 x 2 x 2 mm, first voxel at (-98, -134, -72)"


@pytest.mark.parametrize("broken", [np.diag([1.0, 0, 1, 1]), np.diag([1.0, np.nan, 1, 1])])
def test_an_affine_without_volume_is_an_error_that_names_the_file(broken):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.diag([-1.0, 1, 2, 1]))
    assert to_memory(np.zeros((2, 2, 2)), file_affine(image, "x.nii"))[1].codes == "LAS"
    image.set_sform(broken, 1)
    with pytest.raises(UserError, match=r"x\.nii.*affine"):
        file_affine(image, "x.nii")


def test_voxels_larger_than_the_grid_are_refused():
    with pytest.raises(UserError, match=r"spacing: .* larger than the whole grid, 20 mm"):
        Grid((20, 20, 20), np.eye(4)).at_spacing(1e9)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_fine_is_the_grid_that_coarse_comes_from(factor):
    fine = OBLIQUE.fine(factor)
    assert fine.coarse(factor).matches(OBLIQUE, 1e-9)
    last = [np.array(grid.shape) - 1 for grid in (fine, OBLIQUE)]
    np.testing.assert_allclose(world(fine, last[0]), world(OBLIQUE, last[1]), atol=1e-9)
