import itertools

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from cortexgen.errors import UserError
from cortexgen.metrics.anatomy import (
    effect_sizes,
    tissue_volumes,
    wasabi,
    wasserstein_index,
)
from cortexgen.metrics.resampling import real_against_real, same_size


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def index(real, synthetic):
    return float(wasserstein_index(real, synthetic).mean())


def test_tissues_are_sums_over_names_with_or_without_sides():
    classes = ("Unknown", "Cerebral-White-Matter", "Cerebral-Cortex", "Lateral-Ventricle", "Thalamus", "Brain-Stem")
    volumes = torch.tensor([[900.0, 400, 500, 20, 14, 25], [1, 2, 3, 4, 5, 6]])
    tissues = tissue_volumes(volumes, classes)
    assert {k: v.tolist() for k, v in tissues.items()} == {
        "Cortical-GM": [500, 3],
        "Subcortical-GM": [14, 5],
        "GM": [514, 8],
        "WM": [400, 2],
        "Ventricles": [20, 4],
    }
    sides = ("Unknown", "Left-Cerebral-Cortex", "Right-Cerebral-Cortex", "Left-Inf-Lat-Vent")
    found = tissue_volumes(torch.tensor([0.0, 250, 251, 1]), sides)
    assert {k: float(v) for k, v in found.items()} == {"Cortical-GM": 501, "GM": 501, "Ventricles": 1}
    with pytest.raises(ValueError, match="each of 2 volumes, got 6"):
        tissue_volumes(volumes[:, :2], classes)


def least_squares(design, y):
    return np.linalg.lstsq(np.stack(design, axis=1), y, rcond=None)[0]


def cohort(n, icv, shift, seed):
    sizes = icv + 100 * normal(n, seed=seed)
    return 0.05 * (sizes[:, None] - 1500) + shift + 2 * normal(n, 2, seed=seed + 1), sizes


def test_effect_sizes_have_the_slope_of_a_regression_with_a_term_for_the_set():
    (real, a), (synthetic, b) = cohort(40, 1500, 0, 0), cohort(25, 1600, 1.0, 2)
    d = effect_sizes(real, synthetic, a, b, draws=2).value
    icv, group = torch.cat([a, b]).numpy(), np.repeat([0.0, 1.0], [40, 25])
    for k in range(2):
        y = torch.cat([real, synthetic])[:, k].numpy()
        _, difference, slope = least_squares([np.ones(65), group, icv], y)
        rest = y - slope * icv
        pooled = (39 * rest[:40].var(ddof=1) + 24 * rest[40:].var(ddof=1)) / 63
        assert float(d[k]) == pytest.approx(difference / pooled**0.5)


def test_paper_protocol_shares_one_regression_with_the_synthetic_set_and_turns_the_sign_round():
    (real, a), (synthetic, b) = cohort(200, 1500, 0, 0), cohort(150, 1700, 2.0, 2)
    d = effect_sizes(real, synthetic, a, b, protocol="paper", draws=2).value
    icv = torch.cat([a, b]).numpy()
    for k in range(2):
        y = torch.cat([real, synthetic])[:, k].numpy()
        rest = y - icv * least_squares([np.ones(350), icv], y)[1]
        variance = (rest[:200].var() + rest[200:].var()) / 2
        assert float(d[k]) == pytest.approx((rest[:200].mean() - rest[200:].mean()) / variance**0.5)
    standard = effect_sizes(real, synthetic, a, b, draws=2).value
    assert (standard > 0.6).all() and (standard < 1.4).all()  # 1, to about 0.15
    assert (d < 0).all() and (d.abs() < 0.7 * standard).all()  # a part went to the slope: heads differ too


def test_the_head_alone_is_no_effect_and_a_shift_is_itself_over_the_deviation():
    (real, a), (synthetic, b) = cohort(300, 1400, 0, 0), cohort(300, 1600, torch.tensor([0.0, 3.0]), 2)
    value, low, high = effect_sizes(real, synthetic, a, b, draws=100)
    assert value.tolist() == pytest.approx([0, 1.5], abs=0.25)
    assert (low < value).all() and (value < high).all() and low[1] > 1 and low[0] < 0 < high[0]


def test_bootstrap_intervals_hold_the_truth_as_often_as_they_say():
    real, synthetic = normal(40, 600), normal(50, 600, seed=1) + 0.4
    sizes = 1500 + 100 * normal(90, seed=2)
    _, low, high = effect_sizes(real, synthetic, sizes[:40], sizes[40:], draws=400)
    assert float(((low < 0.4) & (high > 0.4)).double().mean()) == pytest.approx(0.95, abs=0.04)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (25, 41)])
def test_wasserstein_distance_is_scipys_after_standardizing_by_the_real_brains(n, m):
    real, synthetic = 500 + 40 * normal(n, 3), 520 + 30 * normal(m, 3, seed=1)
    expected = [
        wasserstein_distance((r - r.mean()) / r.std(ddof=1), (s - r.mean()) / r.std(ddof=1))
        for r, s in zip(real.T.numpy(), synthetic.T.numpy(), strict=True)
    ]
    np.testing.assert_allclose(wasserstein_index(real, synthetic), expected, rtol=1e-10)


def test_wasserstein_distance_of_known_shifts():
    real = normal(50, 3)
    shift = torch.tensor([0.0, 0.5, -2.0], dtype=torch.float64)
    torch.testing.assert_close(wasserstein_index(real, real + shift * real.std(dim=0)), shift.abs())
    torch.testing.assert_close(wasserstein_index(7 * real - 3, 7 * (real + 1) - 3), wasserstein_index(real, real + 1))
    assert wasserstein_index(torch.ones(4, 1), torch.ones(4, 1)).isnan().all()


def test_wasabi_is_the_best_of_all_pairings():
    real, synthetic = 0.1 + 0.01 * normal(5, 4), 0.2 + 0.01 * normal(5, 4, seed=1)
    scaled = synthetic * real.mean() / synthetic.mean()
    pairings = [(real - scaled[list(p)]).square().sum(dim=1).mean() for p in itertools.permutations(range(5))]
    assert wasabi(real, synthetic) == pytest.approx(1e4 * float(min(pairings)))
    assert wasabi(real, 3 * real[torch.tensor([2, 0, 1, 4, 3])]) == pytest.approx(0, abs=1e-9)


def test_large_regions_outweigh_small_ones_in_wasabi_and_not_in_the_index():
    real = torch.tensor([0.4, 0.002]) * (1 + 0.1 * normal(40, 2))
    large, small = real.clone(), real.clone()
    large[:, 0] *= 1 + 0.05 * normal(40, seed=1)
    small[:, 1] *= 2
    assert index(real, small) > index(real, large)
    assert wasabi(real, small) < wasabi(real, large)


@pytest.mark.parametrize("measure", [index, wasabi])
def test_like_brains_lie_on_the_floor_of_real_against_real_and_damaged_ones_above(measure):
    real = torch.tensor([0.4, 0.3, 0.1]) * (1 + 0.1 * normal(60, 3))
    like = torch.tensor([0.4, 0.3, 0.1]) * (1 + 0.1 * normal(40, 3, seed=1))
    floor = real_against_real(measure, real, 30, repeats=60)
    same, worse = (same_size(measure, real, x, 30, repeats=60) for x in (like, like * torch.tensor([1.0, 1.3, 1.0])))
    assert floor.min() > 0
    assert floor.quantile(0.025) < same.mean() < floor.quantile(0.975)
    assert worse.min() > floor.quantile(0.975)


def test_errors_name_what_is_wrong():
    x, sizes = normal(5, 2), normal(5)
    with pytest.raises(ValueError, match=r"\[M, K\]"):
        wasserstein_index(x, normal(5, 3))
    with pytest.raises(ValueError, match=r"ICV \[N\] and \[M\]"):
        effect_sizes(x, x, sizes, sizes[1:])
    with pytest.raises(UserError, match="3 or more brains of each kind, got 5 and 2"):
        effect_sizes(x, x[:2], sizes, sizes[:2])
    with pytest.raises(UserError, match="each set has one ICV"):
        effect_sizes(x, x, torch.ones(5), torch.full((5,), 2.0))
    with pytest.raises(UserError, match="as many real as synthetic brains, got 5 and 4"):
        wasabi(x, x[:4])
