import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cortexgen.metrics.gaussian import gaussian, gaussian_matrix


@pytest.mark.parametrize("sigma", [0.7, 1.5, 4.0])  # 4 voxels: weights reach over the whole of a short axis
def test_scipys_gaussian_with_mirrored_borders(sigma):
    volumes = torch.randn(2, 1, 9, 12, 1, generator=torch.Generator().manual_seed(0))
    expected = gaussian_filter(volumes.double().numpy(), (0, 0, sigma, sigma, sigma), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(gaussian(volumes, sigma), expected, atol=1e-5)


def test_zero_width_changes_nothing():
    volume = torch.rand(1, 4, 5, 6)
    assert torch.equal(gaussian(volume, 0), volume)


def test_weights_sum_to_one():
    np.testing.assert_allclose(gaussian_matrix(4, 1.5, 2).sum(dim=1), 1, rtol=1e-6)
