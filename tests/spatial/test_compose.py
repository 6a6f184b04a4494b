import numpy as np
import torch

from cortexgen.spatial import compose, identity, integrate, warp

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
