import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from cortexgen.metrics.distances import pairwise_distances


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distances_are_scipys_over_the_root_of_the_number_of_voxels():
    a, b = normal(4, 3, 19, 20, 18).float(), normal(5, 3, 19, 20, 18, seed=1).float()  # two chunks
    expected = cdist(a.flatten(1), b.flatten(1)) / math.sqrt(19 * 20 * 18)
    np.testing.assert_allclose(pairwise_distances(a, b), expected, rtol=1e-12)


def test_a_constant_shift_is_its_length():
    field = 10 * normal(1, 3, 6, 7, 8)
    shift = torch.tensor([2.0, 3.0, 6.0]).view(1, 3, 1, 1, 1)
    assert pairwise_distances(field, field + shift).item() == pytest.approx(7)
    assert pairwise_distances(field, field).item() < 1e-6


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="of one shape"):
        pairwise_distances(normal(2, 3, 4, 4, 4), normal(2, 3, 4, 4, 5))
