import numpy as np
import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.evaluation.comparable import covered, cut, in_unit, laid_on, overlap, to_unit
from cortexgen.io import Grid
from cortexgen.spatial import present_labels

CUBE = Grid((10, 10, 10), np.diag([2.0, 2, 2, 1]))


def moved(grid: Grid, *shift: float) -> Grid:
    affine = grid.affine.copy()
    affine[:3, 3] += shift
    return Grid(grid.shape, affine, grid.codes)


@pytest.mark.parametrize(
    ("other", "grid_in_other", "of_the_smaller"),
    [
        (CUBE, 1, 1),
        (moved(CUBE, 10, 0, 0), 0.5, 0.5),
        (moved(CUBE, 10, -10, 0), 0.25, 0.25),
        (moved(CUBE, 0, 0, 30), 0, 0),
        (Grid((5, 5, 5), CUBE.affine), 1 / 8, 1),
        (Grid((20, 10, 10), np.diag([1.0, 2, 2, 1])), 1, 1),
        (Grid((20, 20, 20), CUBE.affine), 1, 1),
    ],
)
def test_shares_of_boxes_are_those_of_their_volumes(other, grid_in_other, of_the_smaller):
    assert covered(CUBE, other) == pytest.approx(grid_in_other, abs=0.08)
    assert overlap(CUBE, other) == overlap(other, CUBE) == pytest.approx(of_the_smaller, abs=0.08)


def test_a_cut_keeps_each_voxel_at_its_place_in_the_world():
    volume = torch.rand(1, *CUBE.shape)
    target = Grid((6, 12, 10), moved(CUBE, 4, -2, 6).affine)
    out = cut(volume, CUBE, target)
    assert out is not None and out.shape == (1, 6, 12, 10)
    for d, h, w in [(0, 1, 0), (5, 10, 6), (3, 5, 2)]:
        assert out[0, d, h, w] == volume[0, d + 2, h - 1, w + 3]
    assert not out[0, :, 0].any() and not out[0, :, 11].any() and not out[0, :, :, 7:].any()


@pytest.mark.parametrize("target", [moved(CUBE, 1, 0, 0), CUBE.at_spacing(1.9), CUBE.coarse(2)])
def test_grids_of_other_voxels_cannot_be_cut(target):
    assert cut(torch.rand(1, *CUBE.shape), CUBE, target) is None


def test_axes_are_taken_as_in_the_grids_file_whatever_the_header_says():
    affine = np.diag([2.0, 2, 2, 1])[[2, 1, 0, 3]]  # D runs to superior
    grid, claimed = Grid((4, 5, 6), affine, "RAS"), Grid((4, 5, 6), affine, "LAS")
    array = torch.rand(6, 5, 4)  # x, y, z of the file, whose header claims that x runs to the left
    out = laid_on(array.permute(2, 1, 0).flip(2)[None], claimed, grid, "file")
    assert torch.equal(out[0], array.permute(2, 1, 0))
    with pytest.raises(UserError, match="file: 6 x 5 x 4 voxels, expected 10 x 10 x 10"):
        laid_on(out, claimed, Grid((10, 10, 10), affine), "file")


@pytest.mark.parametrize("values", [[0, 3, 17], [-4, 0, 2], [0, 2035, 10**9]])
def test_labels_that_occur(values):
    labels = torch.tensor(values)[torch.randint(3, (1, 6, 6, 6))]
    labels[0, 0, 0, :3] = torch.tensor(values)
    assert present_labels(labels).tolist() == values


def test_the_unit_range_may_be_left_by_rounding_only():
    image = torch.tensor([-1e-4, 0.5, 1.0001])
    assert in_unit(image, "file").tolist() == [0, 0.5, 1]
    with pytest.raises(UserError, match=r"file: intensities from 0 to 1.1, expected \[0, 1\]"):
        in_unit(torch.tensor([0, 1.1]), "file")


@pytest.mark.parametrize(("share", "there"), [(0.07, False), (0.14, True)])
def test_a_tenth_of_all_voxels_at_the_bottom_is_a_background(share, there):
    image = torch.linspace(-0.5, 2, 1000)
    image[: int(1000 * share)] = -1.0
    if there:
        unit, done = to_unit(image, "file")
        assert "background taken as zero" in done and unit[0] == 0 and unit[500] > 0.4
    else:
        with pytest.raises(UserError, match="file: intensities from -1 to 2 with the background between"):
            to_unit(image, "file")


@pytest.mark.parametrize(("low", "fine"), [(-0.07, True), (-0.14, False)])
def test_a_tenth_of_the_range_may_be_undershot(low, fine):
    image = torch.cat([torch.zeros(600), torch.linspace(low, 1, 400)])
    if fine:
        unit, done = to_unit(image, "file")
        assert "slightly below zero cut" in done and not unit[:600].any()
    else:
        with pytest.raises(UserError, match=rf"file: intensities from {low} to 1 with the background between"):
            to_unit(image, "file")
