import math

import numpy as np
import pytest
import torch

from cortexgen.losses import gradient_energy, gradient_size


def test_linear_field_costs_the_squared_norm_of_its_gradient():
    gradient = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    field = np.einsum("ij,jdhw->idhw", gradient, np.indices((5, 7, 6))) + 4
    energy = gradient_energy(torch.from_numpy(field)[None])
    assert energy.item() == pytest.approx((gradient**2).sum() / 9, rel=1e-5)


def test_its_size_is_the_mean_of_the_gradients_absolute_values():
    gradient = np.random.default_rng(0).uniform(-1, 1, (3, 3))
    field = np.einsum("ij,jdhw->idhw", gradient, np.indices((5, 7, 6))) + 4
    assert gradient_size(torch.from_numpy(field)[None]).item() == pytest.approx(np.abs(gradient).mean(), rel=1e-5)


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_wave_costs_its_closed_form_along_any_axis(axis):
    # Over whole periods of n voxels the mean of (sin(k (x + 1)) - sin(k x))² is 2 sin²(k / 2), with k = 2 pi / n.
    n = 8
    wave = torch.sin(2 * math.pi * torch.arange(2 * n + 1) / n)
    shape = [1, 1, 1, 1, 1]
    shape[axis] = -1
    size = [2, 3, 4, 5, 6]
    size[axis] = 2 * n + 1
    energy = gradient_energy(wave.view(shape).expand(size))
    assert energy.item() == pytest.approx(2 * math.sin(math.pi / n) ** 2 / 3, rel=1e-4)


def test_half_precision_is_summed_in_single():
    energy = gradient_energy(200 * torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 3, 4, 4, 4).half())
    assert energy.item() == pytest.approx(200**2 / 3, rel=1e-5)
    assert energy.dtype == torch.float32
