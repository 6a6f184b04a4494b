import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import pearsonr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cortexgen.errors import UserError
from cortexgen.metrics.similarity import brain_ncc, brain_psnr, brain_ssim, ncc, psnr, ssim


@pytest.fixture
def images():
    """Two smooth images `[1, D, H, W]` in [0, 1] that resemble each other."""
    a, b = gaussian_filter(np.random.default_rng(0).standard_normal((2, 21, 24, 19)), (0, 2, 2, 2))
    pair = np.stack([a, a + 0.4 * b])
    pair = (pair - pair.min()) / np.ptp(pair)
    return torch.from_numpy(pair).float()[:, None]


def test_identical_images(images):
    assert ssim(images[0], images[0]) == pytest.approx(1, abs=1e-6)
    assert psnr(images[0], images[0]) == math.inf


@pytest.mark.parametrize("shift", [0.5, 0.1, -0.01])
def test_psnr_of_a_constant_shift(images, shift):
    assert psnr(images[0], images[0] + shift) == pytest.approx(-20 * math.log10(abs(shift)), abs=1e-3)


def test_psnr_is_of_data_range_1_whatever_the_images_span(images):
    a, b = images / 10
    expected = -10 * math.log10(np.mean((a.numpy().astype(float) - b.numpy()) ** 2))
    assert psnr(a, b) == pytest.approx(expected, abs=1e-3)


def test_ssim_is_wangs_formula_with_scipys_gaussian(images):
    a, b = images[:, 0].numpy().astype(float)

    def mean(x):
        return gaussian_filter(x, 1.5, truncate=3.5, mode="mirror")  # 11 voxels wide

    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b, cov = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2, mean(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    local = (2 * mu_a * mu_b + c1) * (2 * cov + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    assert ssim(images[0], images[1]) == pytest.approx(local.mean(), abs=1e-5)
    assert local.mean() < 0.95


def test_ssim_of_constant_images():
    a, b = torch.full((1, 16, 16, 16), 0.2), torch.full((1, 16, 16, 16), 0.8)
    assert ssim(a, b) == pytest.approx((2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4), abs=1e-3)


def test_ncc_is_scipys_correlation_whole_and_inside(images):
    a, b = images
    mask = a > a.median()
    assert ncc(a, b) == pytest.approx(pearsonr(a.flatten(), b.flatten()).statistic, abs=1e-6)
    assert brain_ncc(a, b, mask) == pytest.approx(pearsonr(a[mask], b[mask]).statistic, abs=1e-6)
    assert abs(ncc(a, b) - brain_ncc(a, b, mask)) > 0.01
    assert ncc(a, 3 * a + 1) == pytest.approx(1) and ncc(a, -a) == pytest.approx(-1)
    assert math.isnan(ncc(a, torch.full_like(a, 0.3)))


def test_inside_the_brain_psnr_and_ssim_are_skimages(images):
    a, b = images
    mask = torch.zeros_like(a, dtype=torch.bool)
    mask[:, 6:-6, 6:-7, 7:-6] = a[:, 6:-6, 6:-7, 7:-6] > a.median()
    x, y, inside = (t[0].numpy() for t in (a, b, mask))
    _, local = structural_similarity(
        x, y, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert brain_ssim(a, b, mask) == pytest.approx(local[inside].mean(), abs=1e-5)
    assert brain_ssim(a, b, mask[0]) == brain_ssim(a, b, mask)
    assert brain_psnr(a, b, mask) == pytest.approx(peak_signal_noise_ratio(x[inside], y[inside], data_range=1))


def test_inside_the_brain_the_shared_background_counts_for_nothing(images):
    mask = torch.zeros_like(images[0], dtype=torch.bool)
    mask[:, 8:13, 8:16, 6:13] = True
    a, b = images * mask
    for whole, inside in ((psnr, brain_psnr), (ssim, brain_ssim), (ncc, brain_ncc)):
        assert whole(a, b) > inside(a, b, mask)


@pytest.mark.parametrize("measure", [brain_psnr, brain_ssim, brain_ncc])
def test_an_empty_mask_is_an_error(images, measure):
    with pytest.raises(UserError, match="mask is empty"):
        measure(images[0], images[1], torch.zeros_like(images[0]))
