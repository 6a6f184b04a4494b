"""Effects of age and sex on volumes, and whether a set has them."""

import numpy as np
import pytest
import torch

from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.effects import effect_rows
from cortexgen.metrics.resampling import Interval


def _cohort(n: int, seed: int, slope: float, sex: float) -> tuple[Anatomy, list[dict[str, object]]]:
    """Volumes with an effect of age in ml a year, and of being M in ml, beside that of head size."""
    rng = np.random.default_rng(seed)
    age, male = rng.uniform(20, 60, n), rng.integers(0, 2, n)
    icv = rng.normal(1500, 100, n) + 150 * male
    volumes = 20 + slope * age + sex * male + 0.01 * icv + rng.normal(0, 1, n)
    empty = torch.zeros(n, 0, dtype=torch.float64)
    anatomy = Anatomy(
        index=list(range(n)),
        regions=["Lateral-Ventricle"],
        volumes=torch.from_numpy(volumes)[:, None],
        asymmetry=empty,
        icv=torch.from_numpy(icv),
        centroid=empty,
        cortex=empty,
        image=empty,
    )
    return anatomy, [
        {"age": float(a), "sex": "FM"[m], "site": "x", "note": None} for a, m in zip(age, male, strict=True)
    ]


def test_the_slope_is_that_of_least_squares_with_head_size_held_constant() -> None:
    real, rows = _cohort(80, 0, 0.2, 0.0)
    other, others = _cohort(90, 1, 0.2, 0.0)
    found = next(row for row in effect_rows(real, other, (rows, others)) if row["covariate"] == "age")
    design = np.column_stack([np.ones(80), [row["age"] for row in rows], real.icv])
    expected = np.linalg.lstsq(design, real.volumes[:, 0].numpy(), rcond=None)[0][1]
    estimate = found["real"]
    assert isinstance(estimate, Interval)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < 0.2 < estimate.high


def test_an_effect_that_is_there_is_recovered_95_times_in_100() -> None:
    found = []
    for seed in range(60):
        (real, rows), (other, others) = (_cohort(60, 2 * seed + k, 0.2, 1.0) for k in (0, 1))
        found += [row["recovered"] for row in effect_rows(real, other, (rows, others))]
    assert len(found) == 120
    assert 0.88 <= sum(map(bool, found)) / 120 <= 0.995


def test_a_missing_effect_is_not_recovered() -> None:
    real, rows = _cohort(100, 0, 0.2, 2.0)
    other, others = _cohort(100, 1, 0.0, 0.0)
    found = {row["covariate"]: row for row in effect_rows(real, other, (rows, others))}
    assert set(found) == {"age", "sex"}  # one site, no notes
    assert found["age"]["recovered"] is False
    assert float(str(found["age"]["z"])) < -3
    assert found["sex"]["recovered"] is False
    assert found["sex"]["effect"] == "Cohen's d, M − F"


@pytest.mark.parametrize(("known", "covariates"), [(9, {"sex"}), (12, {"age", "sex"})])
def test_ten_known_values_are_an_effect(known: int, covariates: set[str]) -> None:
    real, rows = _cohort(80, 0, 0.2, 0.0)
    other, others = _cohort(90, 1, 0.2, 0.0)
    for row in others[known:]:
        row["age"] = None
    assert {row["covariate"] for row in effect_rows(real, other, (rows, others))} == covariates


def test_too_few_known_values_are_no_effect() -> None:
    real, rows = _cohort(80, 0, 0.2, 0.0)
    other, others = _cohort(90, 1, 0.2, 0.0)
    for row in others[5:]:
        row["age"] = None
    assert {row["covariate"] for row in effect_rows(real, other, (rows, others))} == {"sex"}
