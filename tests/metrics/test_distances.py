import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from cortexgen.errors import UserError
from cortexgen.metrics import energy_score, pairwise_distances


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


def test_two_points_by_hand():
    across, within = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    assert energy_score(across, within) == pytest.approx(2 - 2 / 2)


def test_energy_score_of_a_gaussian():
    # E|X - y| = 2 phi(y) + y (2 Phi(y) - 1) and E|X - X'| = 2 / sqrt(pi) for standard normal X
    x = normal(3000, 1, 1)
    y = torch.tensor([0.7])
    density = math.exp(-(0.7**2) / 2) / math.sqrt(2 * math.pi)
    expected = 2 * density + 0.7 * math.erf(0.7 / math.sqrt(2)) - 1 / math.sqrt(math.pi)
    score = energy_score(pairwise_distances(y.view(1, 1, 1).double(), x), pairwise_distances(x, x))
    assert score == pytest.approx(expected, abs=0.02)


def test_the_right_distribution_has_the_lowest_score():
    observed, x = normal(200, 1, 4), normal(400, 1, 4, seed=1)

    def score(samples):
        return energy_score(pairwise_distances(observed, samples), pairwise_distances(samples, samples))

    best = score(x)
    assert all(score(wrong) > best + 0.005 for wrong in (0.6 * x, 1.5 * x, x + 0.4))
    assert score(x[:100]) == pytest.approx(score(x), abs=0.03)  # the second term is unbiased


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="of one shape"):
        pairwise_distances(normal(2, 3, 4, 4, 4), normal(2, 3, 4, 4, 5))
    with pytest.raises(ValueError, match=r"\[M, M\]"):
        energy_score(torch.zeros(3, 4), torch.zeros(3, 3))
    with pytest.raises(UserError, match="got 3 and 1"):
        energy_score(torch.zeros(3, 1), torch.zeros(1, 1))
