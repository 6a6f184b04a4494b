import numpy as np
import pytest
import torch
from scipy import stats

from cortexgen.errors import UserError
from cortexgen.metrics.effects import adjusted, cohens_d, sd_ratio, slope


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cohens_d_by_hand():
    a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])  # means 2 and 4, variances 2 and 4
    d = 2 / ((1 * 2 + 2 * 4) / 3) ** 0.5
    reach = stats.norm.ppf(0.975) * (5 / 6 + d**2 / 10) ** 0.5
    assert [float(x) for x in cohens_d(a, b)] == pytest.approx([d, d - reach, d + reach])


def test_cohens_d_is_scipys_t_and_turns_round():
    a, b = normal(14, 3), normal(11, 3, seed=1) + 0.8
    expected = stats.ttest_ind(b, a).statistic * (1 / 14 + 1 / 11) ** 0.5
    forth, back = cohens_d(a.float(), b.float()), cohens_d(b.float(), a.float())
    np.testing.assert_allclose(forth.value, expected, rtol=1e-5)
    for x, y in zip(forth, (back.value, back.high, back.low), strict=True):
        torch.testing.assert_close(x, -y)


def test_ratio_of_deviations_has_the_interval_of_f():
    a, b = normal(20, 2), 3 * normal(9, 2, seed=1)
    ratio, low, high = sd_ratio(a, b)
    np.testing.assert_allclose(ratio, b.numpy().std(axis=0, ddof=1) / a.numpy().std(axis=0, ddof=1))
    np.testing.assert_allclose(low, ratio / stats.f.ppf(0.975, 8, 19) ** 0.5)
    np.testing.assert_allclose(high, ratio / stats.f.ppf(0.025, 8, 19) ** 0.5)
    back = sd_ratio(b, a)
    torch.testing.assert_close(back.low, 1 / high)


def test_intervals_hold_the_truth_as_often_as_they_say():
    a, b = normal(15, 4000), 1.5 * normal(25, 4000, seed=1)
    for (_, low, high), truth in ((sd_ratio(a, b), 1.5), (cohens_d(a, b / 1.5 + 0.5), 0.5)):
        assert ((low < truth) & (truth < high)).double().mean() == pytest.approx(0.95, abs=0.015)


def test_adjustment_takes_away_what_the_head_explains():
    icv = 1500 + 100 * normal(30)
    own = normal(30, 2)
    own -= slope_of(own, icv) * (icv - icv.mean())[:, None]
    volumes = torch.tensor([5.0, 80.0]) + torch.tensor([0.002, 0.05]) * (icv - icv.mean())[:, None] + own
    torch.testing.assert_close(adjusted(volumes, icv), torch.tensor([5.0, 80.0], dtype=torch.float64) + own)


def slope_of(outcomes, x):
    centred = x - x.mean()
    return centred @ outcomes / centred.square().sum()


def test_slope_is_scipys():
    x = 40 + 12 * normal(25)
    y = 3 - 0.2 * x + normal(25, seed=1)
    expected = stats.linregress(x, y)
    assert slope(y, x) == pytest.approx((expected.slope, expected.stderr))
    assert slope(y.float(), x.float()) == pytest.approx((expected.slope, expected.stderr), rel=1e-4)


def test_slope_with_other_columns_is_that_of_residuals():
    others = torch.stack([1.5e6 + 1e5 * normal(40), (normal(40, seed=2) > 0).double()], dim=1)
    x = 40 + 1e-4 * (others[:, 0] - 1.5e6) + 5 * normal(40, seed=3)
    y = 0.3 * x + 2e-5 * others[:, 0] - others[:, 1] + normal(40, seed=4)
    rest = torch.cat([torch.ones(40, 1), others], dim=1).double().numpy()
    rx, ry = (v.numpy() - rest @ np.linalg.lstsq(rest, v.numpy(), rcond=None)[0] for v in (x, y))
    value = rx @ ry / (rx @ rx)
    error = (((ry - value * rx) ** 2).sum() / (40 - 4) / (rx @ rx)) ** 0.5
    assert slope(y, x, others) == pytest.approx((value, error), rel=1e-6)


def test_errors_name_what_is_wrong():
    x = normal(6)
    for compare in (cohens_d, sd_ratio):
        with pytest.raises(ValueError, match=r"\[M, K\]"):
            compare(normal(5, 2), normal(5, 3))
        with pytest.raises(UserError, match="2 or more brains of each kind, got 5 and 1"):
            compare(normal(5, 2), normal(1, 2))
    with pytest.raises(ValueError, match=r"ICV \[N\]"):
        adjusted(normal(5, 2), x)
    with pytest.raises(UserError, match="different ICV"):
        adjusted(normal(6, 2), torch.full((6,), 1500.1))
    with pytest.raises(ValueError, match=r"x \[N\]"):
        slope(x, x[1:])
    with pytest.raises(UserError, match="2 coefficients needs 3 or more brains, got 2"):
        slope(x[:2], x[:2])
    for others in (torch.ones(6, 1), 2 * x[:, None] + 1, torch.zeros(6, 1)):
        with pytest.raises(UserError, match="combination"):
            slope(normal(6, seed=1), x, others)
