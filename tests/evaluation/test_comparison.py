"""Values, intervals and floors of statistics whose distribution is known."""

import math
from dataclasses import replace

import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import Metric, declared
from cortexgen.metrics.resampling import Interval


def _shift(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(y.mean() - x.mean())


def _normal(n: int, mean: float, seed: int) -> torch.Tensor:
    return mean + torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_interval_is_that_of_a_difference_of_means() -> None:
    x, y = _normal(200, 0, 0), _normal(300, 0.5, 1)
    row = Metric("shift", "Shift", "image", _shift, better=0.0).measure(x, y, resamples=1000)
    value = row["value"]
    assert isinstance(value, Interval)
    assert value.value == pytest.approx(_shift(x, y))
    error = math.sqrt(float(x.var()) / 200 + float(y.var()) / 300)
    assert value.high - value.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    assert (row["n_real"], row["n"], row["n_floor"]) == (200, 300, 100)


def test_the_floor_is_real_against_real_at_the_n_it_names() -> None:
    x, y = _normal(200, 0, 0), _normal(40, 3, 1)

    def size(a: torch.Tensor, b: torch.Tensor) -> float:
        return len(a) + len(b) / 1000

    row = Metric("size", "Size", "image", size).measure(x, y, resamples=10)
    assert row["n_floor"] == 40
    assert row["floor"] == Interval(40.04, 40.04, 40.04)
    assert row["at_floor"] == pytest.approx(40.04)
    shift = Metric("shift", "Shift", "image", _shift).measure(x, y, resamples=10, repeats=200)
    floor = shift["floor"]
    assert isinstance(floor, Interval)
    assert abs(floor.value) < 0.1
    assert float(str(shift["at_floor"])) == pytest.approx(_shift(x, y), abs=0.05)


def test_intervals_keep_to_the_bounds() -> None:
    x, y = _normal(20, 0, 0), _normal(20, 0, 1)

    def share(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((b > 1.2).double().mean())

    value = Metric("share", "Share", "image", share, bounds=(0.0, 1.0)).measure(x, y, resamples=200)["value"]
    free = Metric("share", "Share", "image", share).measure(x, y, resamples=200)["value"]
    assert isinstance(value, Interval)
    assert isinstance(free, Interval)
    assert value.low == max(free.low, 0)
    assert value.high == free.high


def test_a_statistic_of_a_set_alone_has_the_real_ones_own_value_as_floor() -> None:
    x, y = _normal(50, 2, 0), _normal(80, 3, 1)
    mean = Metric("mean", "Mean", "image", lambda a, b: float(b.mean()), better="real", alone=lambda a: float(a.mean()))
    row = mean.measure(x, y, resamples=300)
    assert row["better"] == float(x.mean())
    floor = row["floor"]
    assert isinstance(floor, Interval)
    assert floor.value == pytest.approx(float(x.mean()))
    assert floor.high - floor.low == pytest.approx(2 * 1.96 * float(x.std()) / math.sqrt(50), rel=0.2)
    assert row["n_floor"] == 50


def test_too_few_brains_are_a_note_and_no_number() -> None:
    row = Metric("shift", "Shift", "image", _shift).measure(_normal(1, 0, 0), _normal(5, 0, 1), resamples=10)
    assert row["value"] is None
    assert "got 1 and 5" in str(row["note"])


def test_a_floor_of_two_brains_is_none() -> None:
    row = Metric("shift", "Shift", "image", _shift).measure(_normal(5, 0, 0), _normal(5, 0, 1), resamples=10)
    assert isinstance(row["value"], Interval)
    assert row["floor"] is None
    assert "a floor needs 8 or more real brains" in str(row["note"])


def test_what_is_not_defined_is_a_note() -> None:
    x = _normal(9, 0, 0)
    row = Metric("nan", "NaN", "image", lambda a, b: math.nan).measure(x, x, resamples=10)
    assert row["value"] is None
    assert row["note"] == "not defined for these brains"


def test_resamples_without_a_value_are_left_out() -> None:
    x, y = _normal(9, 0, 0), _normal(9, 1, 1)

    def sometimes(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.nan if float(b[0]) == float(y[3]) else _shift(a, b)

    value = Metric("shift", "Shift", "image", sometimes).measure(x, y, resamples=200)["value"]
    assert isinstance(value, Interval)
    assert value.low < value.value < value.high


def test_a_metric_needs_two_brains_of_each_side_that_have_its_number() -> None:
    x, few = _normal(9, 0, 0), _normal(9, 0, 1)
    few[1:] = math.nan
    metric = Metric("shift", "Shift", "image", _shift)
    assert metric.fits(x, x) and not metric.fits(x, few) and not metric.fits(few, x)
    assert not replace(metric, least=10).fits(x, x)


def test_what_a_metric_needs_is_known() -> None:
    with pytest.raises(
        ValueError, match="metric shift needs 'images', expected one of anatomy, growth, texture, features, im"
    ):
        Metric("shift", "Shift", "images", _shift)  # type: ignore[arg-type]


def test_metrics_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [(metric.name, metric.protocol) for metric in declared()]
    assert len(set(names)) == len(names) > 20 and ("mean_d", "paper") in names
    again = {"one": Metric("shift", "Shift", "image", _shift), "two": (Metric("shift", "Shift", "growth", _shift),)}
    monkeypatch.setattr("cortexgen.evaluation.comparison.everything", lambda kind: again)
    with pytest.raises(UserError, match="metrics: two are called shift of protocol standard"):
        declared()
