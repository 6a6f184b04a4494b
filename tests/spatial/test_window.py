import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, convolve

from cortexgen.spatial import grown, window_sums

SHAPE = (7, 9, 4)


@pytest.mark.parametrize("reach", [0, 1, 2, 6])
def test_sums_are_those_of_scipy(reach):
    volume = torch.rand(2, 3, *SHAPE, generator=torch.Generator().manual_seed(0))
    cube = np.ones((1, 1, *[2 * reach + 1] * 3))
    expected = convolve(volume.numpy().astype(np.float64), cube, mode="constant")
    np.testing.assert_allclose(window_sums(volume, reach), expected, rtol=1e-5)


def test_sums_have_a_gradient():
    volume = torch.rand(1, 2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: window_sums(v, 2), volume)


def test_a_mask_grows_by_cubes():
    mask = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1)) > 0.97
    expected = binary_dilation(mask[0, 0].numpy(), np.ones((5, 5, 5)))
    assert 0 < mask.sum() < expected.sum() < expected.size
    assert np.array_equal(grown(mask, 2)[0, 0], expected)
