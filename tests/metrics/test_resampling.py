import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.metrics.frechet import frechet_distance
from cortexgen.metrics.mmd import mmd2
from cortexgen.metrics.resampling import bootstrap_interval, real_against_real, same_size


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_difference(a, b):
    return float(b.mean() - a.mean())


def held(statistic, truth, a_of, b_of, trials, n):
    """Share of intervals that hold the truth."""
    intervals = [bootstrap_interval(statistic, a_of(k), b_of(k), n=n, seed=k) for k in range(trials)]
    return sum(low <= truth <= high for _, low, high in intervals) / trials


def test_intervals_of_a_difference_of_means_hold_it_as_often_as_they_say():
    share = held(mean_difference, 0.5, lambda k: normal(30, seed=k), lambda k: normal(40, seed=k + 999) + 0.5, 200, 150)
    assert 0.89 <= share <= 0.98


def test_the_interval_is_as_wide_as_the_central_limit_says():
    a, b = normal(200), 2 * normal(150, seed=1)
    value, low, high = bootstrap_interval(mean_difference, a, b, n=4000)
    expected = 2 * 1.96 * float(a.var() / 200 + b.var() / 150) ** 0.5
    assert high - low == pytest.approx(expected, rel=0.05)
    assert value == mean_difference(a, b) and low < value < high
    narrow = bootstrap_interval(mean_difference, a, b, n=4000, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(expected * 0.6745 / 1.96, rel=0.08)


def test_intervals_of_distances_are_not_moved_by_what_resamples_hold_twice():
    expected = sum(frechet_distance(normal(40, 5, seed=k), normal(40, 5, seed=k + 500) + 0.5) for k in range(200)) / 200
    share = held(
        frechet_distance,
        expected,
        lambda k: normal(40, 5, seed=k),
        lambda k: normal(40, 5, seed=k + 500) + 0.5,
        60,
        100,
    )
    assert share > 0.85
    truth = sum(mmd2(normal(40, 5, seed=k), normal(40, 5, seed=k + 500) + 0.5) for k in range(400)) / 400
    share = held(mmd2, truth, lambda k: normal(40, 5, seed=k), lambda k: normal(40, 5, seed=k + 500) + 0.5, 60, 100)
    assert share > 0.85


def test_a_statistic_may_look_up_rows_by_index():
    a, b = normal(20), normal(25, seed=1)
    by_value = bootstrap_interval(mean_difference, a, b, n=50, seed=3)
    by_index = bootstrap_interval(
        lambda i, j: mean_difference(a[i], b[j]), torch.arange(20), torch.arange(25), n=50, seed=3
    )
    assert by_index == by_value
    assert bootstrap_interval(mean_difference, a, b, n=50, seed=4) != by_value


def test_real_against_real_never_meets_itself_and_is_repeatable():
    seen = []

    def record(a, b):
        seen.append((set(a.tolist()), set(b.tolist())))
        return mean_difference(a.double(), b.double())

    values = real_against_real(record, torch.arange(11), n=5, repeats=20, seed=2)
    assert all(len(a) == len(b) == 5 and not a & b for a, b in seen)
    assert len({tuple(sorted(a)) for a, _ in seen}) > 10
    assert torch.equal(values, real_against_real(record, torch.arange(11), n=5, repeats=20, seed=2))
    assert abs(float(values.mean())) < 1 < float(values.std())


def test_synthetic_brains_of_the_real_distribution_get_the_floor():
    real, synthetic = normal(200, 8), normal(200, 8, seed=1)
    floor = float(real_against_real(frechet_distance, real, 60, repeats=20).mean())
    assert float(same_size(frechet_distance, real, synthetic, 60, repeats=20).mean()) == pytest.approx(floor, rel=0.15)
    assert float(same_size(frechet_distance, real, synthetic + 1, 60).mean()) > 5 * floor


def test_errors_name_what_is_missing():
    x = normal(9)
    with pytest.raises(UserError, match="2 or more resamples, got 9 and 1 and 1000"):
        bootstrap_interval(mean_difference, x, x[:1])
    with pytest.raises(UserError, match="between 0 and 1, got 95"):
        bootstrap_interval(mean_difference, x, x, level=95)
    with pytest.raises(UserError, match="real against real at 5 needs 10 or more real brains, got 9"):
        real_against_real(mean_difference, x, 5)
    with pytest.raises(UserError, match="at 10 needs 10 brains of each kind, got 9 and 12"):
        same_size(mean_difference, x, normal(12), 10)
