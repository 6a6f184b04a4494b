from itertools import product

import numpy as np
import pytest
import torch

from cortexgen.spatial import folded, folded_cubes, jacobian_determinant, log_jacobian, stencil_determinants


def test_linear_field_has_one_determinant_in_every_stencil(rng, linear_field):
    gradient = rng.uniform(-0.4, 0.4, (3, 3))
    field = linear_field(gradient, (4, 6, 5))
    expected = np.linalg.det(np.eye(3) + gradient)
    stencils = stencil_determinants(field)
    assert stencils.shape == (1, 10, 3, 5, 4)
    np.testing.assert_allclose(stencils, expected, rtol=1e-4)
    np.testing.assert_allclose(jacobian_determinant(field), expected, rtol=1e-4)


@pytest.mark.parametrize("least, counted", [(0.0, False), (0.49, False), (0.51, True)])
def test_a_cube_folds_by_the_least_determinant_that_is_asked_for(linear_field, least, counted):
    halved = linear_field(np.diag([0.0, -0.5, 0.0]), (3, 4, 5))
    assert (folded_cubes(halved, least) == counted).all()


def test_reflection_is_negative_in_every_stencil(linear_field):
    assert (stencil_determinants(linear_field(np.diag([0.0, -2.0, 0.0]), (3, 4, 5))) < 0).all()


def test_checkerboard_folds_where_central_differences_see_none():
    field = torch.zeros(1, 3, 6, 5, 10)
    field[:, 2] = 0.6 * torch.tensor([-1.0, 1.0]).repeat(5)
    # Voxels 1, 3, 5 and 7 along the last axis pass their successors.
    assert folded(field).tolist() == [5 * 4 * 4]
    assert jacobian_determinant(field).min() > 0.99


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_stray_voxel_folds_the_four_cubes_ahead_of_it(axis):
    field = torch.zeros(2, 3, 7, 8, 9)
    field[1, axis, 3, 4, 5] = 1.5
    ahead = [slice(n - 1, n + 1) for n in (3, 4, 5)]
    ahead[axis] = (3, 4, 5)[axis]
    expected = torch.zeros(6, 7, 8, dtype=torch.bool)
    expected[tuple(ahead)] = True
    assert torch.equal((stencil_determinants(field)[1] <= 0).any(dim=0), expected)
    assert folded(field).tolist() == [0, 4]


def test_central_tetrahedra_catch_a_fold_the_corners_miss():
    # The far face turned by half a turn and stretched by (2, 1/2): each corner keeps volume 1. At height t the map
    # in the plane is (1 - t) I + t diag(-2, -1/2), whose determinant is (1 - t)² - 2.5 t (1 - t) + t².
    vertices = np.indices((2, 2, 2)).astype(float) - np.array([0, 0.5, 0.5]).reshape(3, 1, 1, 1)
    moved = vertices.copy()
    moved[1:, 1] *= np.array([-2, -0.5]).reshape(2, 1, 1)
    field = torch.from_numpy(moved - vertices).float()[None]
    stencils = stencil_determinants(field)[0, :, 0, 0, 0]
    np.testing.assert_allclose(stencils[:8], 1, atol=1e-6)
    assert (stencils[8:] < 0).all()
    assert folded(field).item() == 1

    # The trilinear map really folds: its volume element, by finite differences, falls below zero half-way.
    def trilinear(t, a, b):
        weights = np.einsum("i,j,k->ijk", *([1 - s, s] for s in (t, a, b)))
        return np.einsum("cijk,ijk->c", moved, weights)

    h = 1e-5
    volumes = []
    for t in np.linspace(0, 1, 11):
        p = np.array([t, 0.3, 0.6])
        steps = [(trilinear(*(p + e)) - trilinear(*(p - e))) / (2 * h) for e in h * np.eye(3)]
        volumes.append(np.linalg.det(np.stack(steps, axis=1)))
        assert volumes[-1] == pytest.approx((1 - t) ** 2 - 2.5 * t * (1 - t) + t**2, abs=1e-6)
    assert min(volumes) < -0.1


def test_undefined_field_counts_as_folded():
    field = torch.zeros(1, 3, 4, 4, 4)
    field[0, 0, 0, 0, 0] = torch.nan
    assert folded(field).tolist() == [1]


def test_central_determinant_is_the_mean_of_the_one_sided_ones(smooth):
    field = smooth(3, (7, 9, 8), 1, 1.0)
    stencils = stencil_determinants(field)[0]
    # A voxel is the corner (i, j, k) of the cube that starts at (i, j, k) before it.
    corners = [
        stencils[n, 1 - i : 6 - i, 1 - j : 8 - j, 1 - k : 7 - k]
        for n, (i, j, k) in enumerate(product((0, 1), repeat=3))
    ]
    central = jacobian_determinant(field)[0, 0, 1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(torch.stack(corners).mean(dim=0), central, atol=1e-5, rtol=0)


def test_central_determinant_matches_numpy_up_to_the_border(smooth):
    field = smooth(3, (6, 9, 7), 1.5, 2.0)
    gradients = np.stack([np.stack(np.gradient(c), axis=-1) for c in field[0].numpy()], axis=-2)
    np.testing.assert_allclose(jacobian_determinant(field)[0, 0], np.linalg.det(gradients + np.eye(3)), atol=1e-4)


def test_log_jacobian_of_growth_and_of_collapse(linear_field):
    grown = log_jacobian(linear_field(0.2 * np.eye(3), (4, 5, 6)))
    np.testing.assert_allclose(grown, 3 * np.log(1.2), rtol=1e-4)
    collapsed = log_jacobian(linear_field(-np.eye(3), (4, 5, 6)), floor=1e-2)
    np.testing.assert_allclose(collapsed, np.log(1e-2), rtol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 4, 4), (1, 2, 4, 4, 4), (1, 3, 1, 4, 4)])
def test_stencils_reject_what_is_no_field(shape):
    with pytest.raises(ValueError, match="expected a field"):
        stencil_determinants(torch.zeros(shape))
