import numpy as np
import pytest
import torch
from monai.metrics import FIDMetric
from scipy.linalg import sqrtm
from torchmetrics.image.fid import _compute_fid

from cortexgen.errors import UserError
from cortexgen.metrics.frechet import frechet_distance
from cortexgen.metrics.resampling import real_against_real


def normal(n, scales, seed=0):
    rows = torch.randn(n, len(scales), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows * torch.as_tensor(scales, dtype=torch.float64)


def moments(features):
    return features.mean(dim=0), torch.cov(features.T)


def test_commuting_covariances_have_a_closed_form():
    """Sets whose covariances are exactly diagonal: `|mean|² + sum (sd_a - sd_b)²`."""
    white = normal(50, [1.0] * 4)
    white = white - white.mean(dim=0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(white.T))).T
    a, b = torch.tensor([1.0, 2, 3, 0.5]).double(), torch.tensor([2.0, 2, 1, 0]).double()
    shift = torch.tensor([0.5, 0, -1, 0]).double()
    assert frechet_distance(white * a, (white * b).flip(0) + shift) == pytest.approx(1.25 + 1 + 0 + 4 + 0.25, abs=1e-9)
    assert frechet_distance(white * a, white * a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(60, 45), (200, 300), (12, 300), (9, 14)])
def test_it_is_scipys_and_monais_and_torchmetrics(n, m):
    scales = np.linspace(0.2, 2, 40)
    real, synthetic = (
        normal(n, scales),
        normal(m, scales[::-1].copy(), seed=1) @ torch.linalg.qr(normal(40, [1] * 40)).Q + 0.3,
    )
    (mean_a, cov_a), (mean_b, cov_b) = moments(real), moments(synthetic)
    ours = frechet_distance(real, synthetic)
    root = sqrtm((cov_a @ cov_b).numpy())
    by_hand = float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()) - 2 * np.trace(root).real
    assert ours == pytest.approx(by_hand, rel=1e-5)
    assert ours == pytest.approx(float(_compute_fid(mean_a, cov_a, mean_b, cov_b)), rel=1e-5)
    if min(n, m) > 40:  # MONAI refuses the imaginary part that rank-deficient products get
        assert ours == pytest.approx(float(FIDMetric()(synthetic, real)), rel=1e-5)
    assert frechet_distance(synthetic, real) == pytest.approx(ours, rel=1e-9)
    assert frechet_distance(real.float(), synthetic.float()) == pytest.approx(ours, rel=1e-5)


def test_it_is_biased_upwards_the_more_the_fewer_samples():
    features = normal(800, 1 / np.arange(1, 101) ** 0.5)
    floors = [float(real_against_real(frechet_distance, features, n, repeats=3).mean()) for n in (400, 100, 25)]
    assert floors[0] > 0.02
    assert floors[1] > 2 * floors[0] and floors[2] > 2 * floors[1]


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"expected features \[N, F\] and \[M, F\]"):
        frechet_distance(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(UserError, match="2 or more brains of each kind, got 1 and 3"):
        frechet_distance(torch.zeros(1, 4), torch.zeros(3, 4))
