import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.ndimage import map_coordinates

from cortexgen.spatial import integrate

INNER = (..., slice(4, -4), slice(4, -4), slice(4, -4))


@pytest.mark.parametrize("steps", [4, 7, 10])
def test_flow_of_a_linear_velocity_is_the_matrix_exponential(linear_field, steps):
    generator = np.array([[0.08, -0.15, 0.03], [0.12, -0.05, 0.06], [-0.04, 0.09, 0.1]])
    shape = (17, 21, 19)
    out = integrate(linear_field(generator, shape), steps)
    # The midpoint step of 2^-k, k being n / 2, errs by 4^-k |A³/6| |p - c| to first order.
    cube = np.linalg.norm(np.linalg.matrix_power(generator, 3), 2)
    bound = 4.0 ** -((steps + 1) // 2) * cube / 6 * np.linalg.norm(shape) / 2 + 1e-5
    np.testing.assert_allclose(out[INNER], linear_field(expm(generator) - np.eye(3), shape)[INNER], atol=bound)


def test_flow_follows_the_trajectories_of_a_runge_kutta_solver(smooth):
    velocity = smooth(3, (20, 18, 22), 3, 2.0)
    v = velocity[0].numpy().astype(np.float64)

    def rate(p):
        return np.stack([map_coordinates(c, p, order=1, mode="nearest") for c in v])

    start = np.indices(v.shape[1:]).astype(np.float64)
    p, h = start, 1 / 16
    for _ in range(16):
        k1 = rate(p)
        k2 = rate(p + h / 2 * k1)
        k3 = rate(p + h / 2 * k2)
        p = p + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(p + h * k3))
    error = np.abs(integrate(velocity)[0].numpy() - (p - start))
    assert error.mean() < 0.01
    assert error.max() < 0.1


def test_no_steps_read_the_velocity_as_a_displacement(smooth):
    field = smooth(3, (5, 6, 7), 1, 3.0)
    assert torch.equal(integrate(field, steps=0), field)
    assert integrate(field.half(), steps=0).dtype == torch.float32


def test_constant_velocity_translates_up_to_the_rim():
    velocity = torch.tensor([3.0, -1.5, 0.7]).view(1, 3, 1, 1, 1).expand(1, 3, 6, 7, 8)
    torch.testing.assert_close(integrate(velocity), velocity.contiguous())


def test_gradient_reaches_every_channel_with_unit_weight():
    # Adding a constant to a constant velocity adds it to the displacement, so the sensitivities sum to the identity.
    velocity = torch.full((1, 3, 9, 8, 7), 0.8, requires_grad=True)
    out = integrate(velocity)[0, :, 4, 4, 3]
    sums = torch.stack([torch.autograd.grad(c, velocity, retain_graph=True)[0].sum(dim=(0, 2, 3, 4)) for c in out])
    torch.testing.assert_close(sums, torch.eye(3), atol=1e-4, rtol=0)
