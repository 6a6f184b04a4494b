import numpy as np
import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.metrics.coverage import expected_coverage, precision_and_coverage
from cortexgen.metrics.distances import pairwise_distances


def points(count, seed, width=1.0, dimensions=8):
    return width * torch.randn(count, 1, dimensions, generator=torch.Generator().manual_seed(seed))


def measure(real, generated, k=5):
    return precision_and_coverage(pairwise_distances(real, generated), pairwise_distances(real, real), k)


def test_points_on_a_line_by_hand():
    real = torch.tensor([0.0, 1.0, 3.0, 10.0]).view(4, 1, 1)  # radii for k = 1: 1, 1, 2, 7
    generated = torch.tensor([0.5, 4.0, 30.0]).view(3, 1, 1)  # in balls 0 and 1; in 2 and 3; in none
    result = measure(real, generated, k=1)
    assert result[:3] == pytest.approx((2 / 3, 4 / 3, 1.0))


def test_a_subject_is_no_neighbour_of_its_own():
    real = points(20, 0)
    assert measure(real, real)[:3] == pytest.approx((1, 6 / 5, 1))  # each is in its own ball too


def test_the_same_distribution():
    results = [measure(points(60, 2 * seed), points(40, 2 * seed + 1)) for seed in range(30)]
    _, density, coverage, expected = np.mean(results, axis=0)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(expected, abs=0.02)
    assert expected == pytest.approx(expected_coverage(60, 40, 5))


def test_too_narrow_too_wide_and_elsewhere():
    real = points(200, 0)
    right, narrow, wide, elsewhere = (
        measure(real, x) for x in (points(200, 1), points(200, 1, 0.3), points(200, 1, 2.0), points(200, 1) + 20)
    )
    assert narrow.precision == 1 and narrow.density > 1.5 and narrow.coverage < right.coverage - 0.2
    assert wide.precision < right.precision - 0.3 and wide.coverage < right.coverage - 0.2
    assert elsewhere[:3] == (0, 0, 0)


def test_expected_coverage_by_hand():
    assert expected_coverage(2, 1, 1) == pytest.approx(1 / 2)
    assert expected_coverage(50, 100_000) == pytest.approx(1)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"\[N, N\]"):
        precision_and_coverage(torch.zeros(6, 9), torch.zeros(9, 9))
    with pytest.raises(UserError, match="k = 5 needs 6 or more real"):
        precision_and_coverage(torch.zeros(5, 9), torch.zeros(5, 5))
