import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cortexgen.atlas.template import load_template
from cortexgen.io import Grid
from cortexgen.metrics.morphometry import regional_volumes, volume_weights
from cortexgen.spatial import identity, integrate, warp_labels

SHAPE = (20, 22, 24)
BOX = torch.zeros(2, *SHAPE)
BOX[0, 6:-6, 7:-7, 8:-8] = 1
BOX[1, 8:10, 8:12, 9:13] = 0.5


def linear(matrix):
    """v(p) = A (p - c), `[1, 3, D, H, W]`."""
    offsets = np.indices(SHAPE) - (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    return torch.from_numpy(np.einsum("ij,jdhw->idhw", matrix, offsets)).float()[None]


def test_no_deformation_keeps_the_regions_volumes_in_millilitres():
    volumes = regional_volumes(torch.zeros(2, 3, *SHAPE), BOX, voxel_volume=8.0)
    assert volumes.dtype == torch.float64
    np.testing.assert_allclose(volumes, [[8 * 8 * 8 * 8e-3, 2 * 4 * 4 * 0.5 * 8e-3]] * 2)


@pytest.mark.parametrize("rate", [0.1, -0.08])
def test_a_pull_back_that_grows_by_exp_of_the_trace_shrinks_regions_by_it(rate):
    matrix = np.diag([rate, rate / 2, -rate / 4])
    volumes = regional_volumes(linear(matrix), BOX, voxel_volume=1000.0)[0]
    np.testing.assert_allclose(volumes, BOX.sum(dim=(1, 2, 3)) * math.exp(-np.trace(matrix)), rtol=2e-3)


def test_a_rotation_changes_no_volume():
    spin = 0.15 * np.array([[0, 1, 0.5], [-1, 0, -0.3], [-0.5, 0.3, 0]])
    volumes = regional_volumes(linear(spin), BOX, voxel_volume=1000.0)[0]
    np.testing.assert_allclose(volumes, BOX.sum(dim=(1, 2, 3)), rtol=5e-3)


def test_a_displacement_shrinks_regions_by_its_inverses_determinant():
    matrix = np.diag([0.1, 0.0, 0.2])
    volumes = regional_volumes(linear(matrix), BOX, voxel_volume=1000.0, steps=0)[0]
    np.testing.assert_allclose(volumes, BOX.sum(dim=(1, 2, 3)) / 1.1 / 1.2, rtol=1e-4)


def test_weights_share_every_coarse_voxel_among_the_classes():
    affine = np.array([[0, 0, 1.0, -12], [0, 1, 0, -10], [1, 0, 0, -8], [0, 0, 0, 1]])
    fine = Grid((17, 21, 25), affine)
    labels = (identity(fine.shape)[0, :1] > 6).long() + (identity(fine.shape)[0, 1:2] > 11).long()
    weights = volume_weights(labels, fine, fine.coarse(2), 3)
    np.testing.assert_allclose(weights.sum(dim=0), 1, atol=1e-5)
    assert weights.min() >= 0
    # [1 2 1] / 4 at the coarse voxel of slice 6: it and the slices 5 and 7
    np.testing.assert_allclose(weights[:, 3, 0, 0], [0.75, 0.25, 0], atol=1e-5)


def test_volumes_from_the_jacobian_are_those_of_the_warped_labels():
    original = load_template()
    template = original.to(original.grid.at_spacing(4.0))
    noise = np.random.default_rng(0).standard_normal((3, *template.grid.shape))
    velocity = gaussian_filter(noise, (0, 5, 5, 5))
    velocity = torch.from_numpy(2.5 * velocity / np.abs(velocity).max()).float()[None]
    classes = len(template.classes)

    weights = volume_weights(template.labels, template.grid, template.grid, classes)
    volumes = regional_volumes(velocity, weights, template.grid.voxel_volume)[0]
    positions = identity(template.grid.shape) + integrate(velocity)
    _, sums = warp_labels(template.labels[None], positions, classes)
    counted = sums[0] * template.grid.voxel_volume / 1000
    still = torch.bincount(template.labels.flatten()) * template.grid.voxel_volume / 1000

    large = still[1:] > 5  # millilitres, 80 voxels
    assert large.sum() >= 10
    change = (counted / still - 1).abs()[1:][large]
    np.testing.assert_allclose(volumes[1:][large], counted[1:][large], rtol=0.01)
    assert change.max() > 0.05
