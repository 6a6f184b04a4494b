"""Curves of volumes on age are those of least squares, with errors that hold where spread grows with age."""

import numpy as np
import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.metrics import age_curve


def _people(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ages, and two volumes of a known line and a known parabola whose spread grows with age."""
    rng = np.random.default_rng(seed)
    age = rng.uniform(20, 80, n)
    decades = (age - 50) / 10
    spread = rng.normal(size=(n, 2)) * (age / 50)[:, None] ** 2
    return age, np.stack([30 - 2 * decades, 10 + decades + 0.5 * decades**2], axis=1) + spread


@pytest.mark.parametrize("degree", [1, 2])
def test_coefficients_and_errors_are_those_of_statsmodels(degree: int) -> None:
    from statsmodels.regression.linear_model import OLS

    age, volumes = _people(40, 0)
    curve = age_curve(torch.from_numpy(volumes), torch.from_numpy(age), degree)
    design = ((age - 50) / 10)[:, None] ** np.arange(degree + 1)
    for k in range(2):
        fit = OLS(volumes[:, k], design).fit(cov_type="HC3")
        assert curve.coefficients[:, k].tolist() == pytest.approx(fit.params.tolist())
        assert [float(curve.term(p)[1][k]) for p in range(degree + 1)] == pytest.approx(fit.bse.tolist())
        row = 2.5 ** np.arange(degree + 1)
        found = fit.t_test(row)
        value, error = curve.at(75)
        assert (float(value[k]), float(error[k])) == pytest.approx((float(found.effect[0]), float(found.sd[0, 0])))


def test_intervals_hold_the_true_curve_95_times_in_100() -> None:
    inside = []
    for seed in range(150):
        age, volumes = (torch.from_numpy(x) for x in _people(60, seed))
        curve = age_curve(volumes, age, 2)
        for (value, error), truth in (
            (curve.term(1), (-2.0, 1.0)),
            (curve.term(2), (0.0, 0.5)),
            (curve.at(75.0), (25.0, 15.625)),
        ):
            inside += ((value - torch.tensor(truth)).abs() < 1.959964 * error).tolist()
    assert 0.92 < np.mean(inside) < 0.98


def test_what_is_no_curve_is_refused() -> None:
    with pytest.raises(UserError, match="of degree 2 needs 5 or more brains of different ages, got 4 of 4 ages"):
        age_curve(torch.zeros(4, 1), torch.arange(4.0), 2)
    with pytest.raises(UserError, match="got 9 of 1 ages"):
        age_curve(torch.zeros(9, 1), torch.full((9,), 50.0), 1)
    with pytest.raises(ValueError, match="expected volumes"):
        age_curve(torch.zeros(4, 1), torch.zeros(5), 1)
