"""Fields with a known form."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def smooth(rng):
    """Draws smooth random arrays `[1, C, D, H, W]` of a given peak magnitude."""

    def draw(channels, shape, sigma, peak):
        values = gaussian_filter(rng.standard_normal((1, channels, *shape)), (0, 0, sigma, sigma, sigma))
        return torch.from_numpy(peak * values / np.abs(values).max()).float()

    return draw


@pytest.fixture
def linear_field():
    """Builds `u(p) = A (p - c)` with c the middle of the grid."""

    def build(matrix, shape):
        offsets = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
        return torch.from_numpy(np.einsum("ij,jdhw->idhw", matrix, offsets)).float()[None]

    return build
