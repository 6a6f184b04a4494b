"""Distances between anatomies that differ by a known amount."""

import math

import pytest
import torch

from cortexgen.evaluation.anatomy import METRICS, region_rows
from cortexgen.evaluation.brain import Anatomy
from cortexgen.metrics.resampling import Interval

REGIONS = ["Cerebral-White-Matter", "Cerebral-Cortex", "Thalamus"]
MEANS, SDS = torch.tensor([450.0, 600.0, 14.0]), torch.tensor([20.0, 30.0, 1.0])


def _anatomy(n: int, seed: int, shift: float = 0.0, scale: float = 1.0, **changes: torch.Tensor) -> Anatomy:
    """Normal volumes; `shift` and `scale` act on them in SDs."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    parts = {
        "volumes": MEANS + SDS * (shift + scale * normal(n, 3)),
        "asymmetry": 0.02 + 0.01 * normal(n, 3),
        "icv": 1500 + 100 * normal(n),
        "centroid": normal(n, 3),
        "cortex": torch.tensor([2.5, 1.7e5, 2e5, 7e4, 2.8, 2.4]) * (1 + 0.02 * normal(n, 6)),
        "image": torch.tensor([2, 0.3, 0.01]) * (1 + 0.05 * normal(n, 3)),
    }
    return Anatomy(index=list(range(n)), regions=REGIONS, **(parts | changes))


def _values(real: Anatomy, synthetic: Anatomy, protocol: str = "standard") -> dict[str, float]:
    out = {}
    for metric in METRICS:
        if metric.needs == "anatomy" and metric.protocol == protocol:
            x, y = metric.rows(real), metric.rows(synthetic)
            if x is not None and y is not None and metric.fits(x, y):
                out[metric.name] = metric.statistic(x, y)
    return out


def test_a_shift_of_volumes_is_its_own_effect_size() -> None:
    real, other = _anatomy(2000, 0), _anatomy(2000, 1, shift=0.7)
    values = _values(real, other)
    assert values["mean_d"] == pytest.approx(0.7, abs=0.07)
    assert values["mean_raw_d"] == pytest.approx(0.7, abs=0.07)
    assert values["small_d"] == 0
    assert values["cortical-gm_d"] == pytest.approx(0.7, abs=0.1)
    assert values["wm_d"] == pytest.approx(0.7, abs=0.1)
    assert values["icv_d"] == pytest.approx(0, abs=0.1)
    assert values["asymmetry"] < 0.1
    assert _values(real, _anatomy(2000, 2))["mean_d"] < 0.07
    assert _values(real, other, "paper")["mean_d"] == pytest.approx(0.7, abs=0.07)


def test_spread_is_the_ratio_of_standard_deviations() -> None:
    real, narrow = _anatomy(2000, 0), _anatomy(2000, 1, scale=0.5)
    values = _values(real, narrow)
    assert values["spread"] == pytest.approx(math.log(2), abs=0.06)
    assert values["mean_d"] < 0.1


def test_each_measure_sees_its_own_change_alone() -> None:
    real = _anatomy(400, 0)
    base = _values(real, _anatomy(400, 1))
    place = torch.randn(400, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    changes = {
        "position": {"centroid": torch.tensor([3.0, 0, 4.0]) + place},
        "asymmetry": {"asymmetry": -_anatomy(400, 1).asymmetry},
        "contrast": {"image": _anatomy(400, 1).image * torch.tensor([0.5, 1, 1])},
        "sharpness": {"image": _anatomy(400, 1).image * torch.tensor([1, 0.5, 1])},
        "noise": {"image": _anatomy(400, 1).image * torch.tensor([1, 1, 3])},
        "thickness_d": {"cortex": _anatomy(400, 1).cortex * torch.tensor([1.05, 1, 1, 1, 1, 1])},
    }
    for name, change in changes.items():
        values = _values(real, _anatomy(400, 1, **change))
        moved = {key for key in values if abs(values[key] - base[key]) > 0.3}
        assert moved == {name}
    shifted = _values(real, _anatomy(400, 1, **changes["position"]))
    assert shifted["position"] == pytest.approx(5, abs=0.2)
    assert _values(real, _anatomy(400, 1, **changes["asymmetry"]))["asymmetry"] == pytest.approx(4, abs=0.3)
    for name, ratio in (("contrast", 0.5), ("sharpness", 0.5), ("noise", 3)):
        assert _values(real, _anatomy(400, 1, **changes[name]))[name] == pytest.approx(ratio, rel=0.02)


def test_measures_that_a_set_lacks_are_left_out() -> None:
    without = _anatomy(20, 0, cortex=torch.full((20, 6), torch.nan), image=torch.full((20, 3), torch.nan))
    values = _values(without, _anatomy(20, 1))
    assert "mean_d" in values
    assert not {"thickness_d", "folding_d", "contrast", "noise"} & set(values)


def test_a_brain_without_cortex_does_not_hide_the_others() -> None:
    real, other = _anatomy(200, 0), _anatomy(200, 1)
    before = _values(real, other)["thickness_d"]
    other.cortex[0] = torch.nan
    assert _values(real, other)["thickness_d"] == pytest.approx(before, abs=0.03)


def test_repetition_of_one_brain_has_no_spread() -> None:
    one = _anatomy(1, 1).volumes.expand(50, 3)
    assert _values(_anatomy(50, 0), _anatomy(50, 1, volumes=one))["spread"] == pytest.approx(math.log(1000))


def test_a_difference_of_head_size_alone_is_none_once_adjusted() -> None:
    """Volumes that follow the head: far apart as they are, alike for their head."""
    head = torch.randn(600, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    real, other = _anatomy(300, 0), _anatomy(300, 1)
    for anatomy, size in ((real, head[:300]), (other, 2 + head[300:])):
        anatomy.icv.copy_(1500 + 100 * size)
        anatomy.volumes.add_(2 * SDS * size[:, None])
    values = _values(real, other)
    assert values["mean_raw_d"] > 1
    assert values["mean_d"] < 0.2


def test_rows_of_regions() -> None:
    real, other = _anatomy(300, 0), _anatomy(200, 1, shift=1.0)
    rows = region_rows(real, other, 200)
    assert [row["region"] for row in rows] == REGIONS
    first = rows[0]
    assert first["real_mean"] == pytest.approx(450, abs=4)
    assert first["mean"] == pytest.approx(470, abs=5)
    d = first["d"]
    assert isinstance(d, Interval)
    assert d.low < d.value < d.high
    assert d.value == pytest.approx(1, abs=0.2)
    assert first["d_raw"] == pytest.approx(1, abs=0.2)
    assert first["d_paper"] == pytest.approx(-1, abs=0.2)  # real less synthetic


def test_growth_maps_compare_voxel_by_voxel() -> None:
    random = torch.Generator().manual_seed(0)
    real, other = (0.1 * torch.randn(n, 216, generator=random) for n in (300, 300))
    moved = 0.5 * other + 0.05
    shift, spread = (metric for metric in METRICS if metric.needs == "growth")
    expected = 0.05 / math.sqrt((0.1**2 + 0.05**2) / 2)
    assert shift.statistic(real, moved) == pytest.approx(expected, abs=0.08)
    assert spread.statistic(real, moved) == pytest.approx(0.5, abs=0.03)
