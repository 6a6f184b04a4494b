import itertools

import numpy as np
import torch

from cortexgen.spatial import compose, identity, integrate, invert, warp

INNER = (..., slice(5, -5), slice(5, -5), slice(5, -5))
SHEAR = np.array([[1.1, 0.1, 0.0], [0.0, 0.95, -0.12], [0.05, 0.0, 1.0]])
TURN = np.array([[0.98, 0.2, 0.0], [-0.2, 0.98, 0.0], [0.0, 0.0, 1.05]])


def test_affine_fields_compose_to_the_matrix_product(linear_field):
    shape, eye = (19, 17, 21), np.eye(3)
    out = compose(linear_field(SHEAR - eye, shape), linear_field(TURN - eye, shape))
    torch.testing.assert_close(out[INNER], linear_field(SHEAR @ TURN - eye, shape)[INNER], atol=1e-4, rtol=0)


def test_warping_by_a_composition_is_warping_by_first_then_second(smooth):
    shape = (22, 20, 24)
    first, second = smooth(3, shape, 3, 2.0), smooth(3, shape, 3, 2.0)
    # Trilinear interpolation of a ramp is exact, and so is that of the ramp warped once.
    ramp = (identity(shape) * torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1, 1)).sum(dim=1, keepdim=True)
    at_once, in_turn = warp(ramp, compose(first, second)), warp(warp(ramp, first), second)
    torch.testing.assert_close(at_once[INNER], in_turn[INNER], atol=1e-3, rtol=0)
    image = smooth(1, shape, 3, 1.0)
    error = (warp(image, compose(first, second)) - warp(warp(image, first), second))[INNER].abs()
    assert error.mean() < 0.1 * (image - warp(image, first))[INNER].abs().mean()


def test_opposite_velocities_flow_back(smooth):
    velocity = smooth(3, (22, 20, 24), 4, 2.0)
    forward = integrate(velocity)
    residual = compose(integrate(-velocity), forward)[INNER].abs()
    assert forward[INNER].abs().max() > 1
    assert residual.max() < 0.05


def test_inverse_of_an_affine_field_is_that_of_the_matrix(linear_field):
    shape, eye = (19, 17, 21), np.eye(3)
    out = invert(linear_field(SHEAR - eye, shape), tolerance=1e-5)
    torch.testing.assert_close(out[INNER], linear_field(np.linalg.inv(SHEAR) - eye, shape)[INNER], atol=1e-3, rtol=0)


def test_inverse_along_one_axis_is_that_of_the_piecewise_linear_map():
    x = np.arange(24.0)
    u = 2.5 * np.sin(2 * np.pi * x / 23)
    expected = np.interp(x, x + u, x) - x
    field = torch.zeros(1, 3, 4, 24, 5)
    field[:, 1] = torch.from_numpy(u).float().view(1, 1, -1, 1)
    out = invert(field, tolerance=1e-5)
    np.testing.assert_allclose(out[0, 1, 2, :, 2], expected, atol=1e-4)
    assert not out[:, [0, 2]].any()


def test_guess_starts_the_iteration_and_the_tolerance_ends_it(smooth):
    velocity = smooth(3, (18, 16, 20), 3, 2.0)
    forward, guess = integrate(velocity), integrate(-velocity)
    torch.testing.assert_close(invert(forward, iterations=1), -forward)
    assert torch.equal(invert(forward, guess, iterations=0), guess)
    steps = [invert(forward, iterations=n) for n in range(1, 8)]
    moved = [(b - a).abs().max().item() for a, b in itertools.pairwise(steps)]
    tolerance = (moved[1] * moved[2]) ** 0.5
    assert moved[2] < tolerance < moved[1]
    assert torch.equal(invert(forward, tolerance=tolerance), steps[3])


def test_inverse_undoes_a_displacement_better_than_the_opposite_velocity(smooth):
    velocity = smooth(3, (22, 20, 24), 3, 2.0)
    forward, backward = integrate(velocity), integrate(-velocity)
    inverse = invert(forward, backward)
    residual = compose(forward, inverse)[INNER].abs().max()
    assert residual < 2e-3
    assert residual < compose(forward, backward)[INNER].abs().max()
