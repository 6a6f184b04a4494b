"""What brains were asked to be beside what is seen of them."""

import numpy as np
import pytest

from cortexgen.evaluation.conditions import condition_rows
from cortexgen.metrics.resampling import Interval

SPECS = {"age": {"mean": 40.0, "std": 10.0}, "sex": {"levels": ["F", "M"], "shares": [0.5, 0.5]}}
RNG = np.random.default_rng(0)
ASKED = RNG.uniform(20, 80, 30)
SEEN = 12 + 0.7 * ASKED + RNG.normal(0, 3, 30)
SEXES = ["F", "M"] * 15
PROBABILITIES = np.where(np.arange(30) % 2 == 1, 0.9, 0.2)


def side(asked: np.ndarray = ASKED, seen: np.ndarray = SEEN) -> tuple[list[dict], list[dict]]:
    covariates = [{"age": float(a), "sex": s} for a, s in zip(asked, SEXES, strict=False)]
    return covariates, [{"age": v, "sex": p} for v, p in zip(seen, PROBABILITIES, strict=False)]


def test_numbers_are_numpys() -> None:
    age, sex = condition_rows(SPECS, side(), side(seen=ASKED + 5), 50)
    slope, _ = np.polyfit(ASKED, SEEN, 1)
    expected = {
        "error_real": np.abs(SEEN - ASKED).mean(),
        "bias_real": (SEEN - ASKED).mean(),
        "slope_real": slope,
        "r_real": np.corrcoef(ASKED, SEEN)[0, 1],
        "error": 5.0,
        "bias": 5.0,
        "slope": 1.0,
        "r": 1.0,
    }
    for name, value in expected.items():
        found = age[name]
        assert isinstance(found, Interval) and found.value == pytest.approx(value), name
        assert found.low - 1e-9 <= found.value <= found.high + 1e-9
    assert age["n"] == age["n_real"] == 30
    assert isinstance(sex["right"], Interval) and sex["right"].value == 1.0


def test_the_wrong_sex_is_seen() -> None:
    covariates, answers = side()
    answers = [row | {"sex": 1 - row["sex"]} for row in answers[:10]] + answers[10:]
    sex = condition_rows(SPECS, side(), (covariates, answers), 50)[1]
    assert isinstance(sex["right"], Interval) and sex["right"].value == pytest.approx(20 / 30)


def test_one_age_for_all_has_no_slope() -> None:
    row = condition_rows(SPECS, side(), side(asked=np.full(30, 50.0)), 50)[0]
    assert row["slope"] is None and row["r"] is None and isinstance(row["bias"], Interval)


def test_brains_that_were_not_asked_for_anything_are_left_out() -> None:
    nothing = [{"age": None, "sex": "other"}] * 30
    assert condition_rows(SPECS, side(), (nothing, side()[1]), 50) == []
    few = condition_rows(SPECS, (nothing, side()[1]), side(), 50)[0]
    assert "error_real" not in few and few["n_real"] == 0
