import numpy as np
import pytest
import torch
from monai.metrics import MultiScaleSSIMMetric
from scipy.ndimage import gaussian_filter

from cortexgen.errors import UserError
from cortexgen.metrics.ms_ssim import WEIGHTS, ms_ssim, published_ms_ssim
from cortexgen.metrics.similarity import ssim


def images(count, shape, noise=0.5):
    """Smooth images `[count, 1, *shape]` in [0, 1] that share one pattern."""
    rng = np.random.default_rng(0)
    shared = gaussian_filter(rng.standard_normal(shape), 3) * 10
    own = gaussian_filter(rng.standard_normal((count, *shape)), (0, 2, 2, 2)) * 10
    volumes = shared + noise * own
    return torch.from_numpy((volumes - volumes.min()) / np.ptp(volumes)).float()[:, None]


@pytest.mark.parametrize(
    ("shape", "weights"),
    [((81, 85, 96), WEIGHTS), ((41, 44, 50), WEIGHTS[:3]), ((24, 20, 21), (0.4, 0.6)), ((12, 13, 11), (1.0,))],
)
def test_it_is_monais_where_five_voxels_are_left(shape, weights):
    a, b = images(2, shape)
    metric = MultiScaleSSIMMetric(spatial_dims=3, data_range=1.0, kernel_size=5, kernel_sigma=1.5, weights=weights)
    expected = float(metric(a[None], b[None]))
    assert ms_ssim(a, b, weights=weights) == pytest.approx(expected, abs=1e-5)
    assert 0.1 < expected < 0.99


def test_a_brains_box_at_2_mm_has_five_scales():
    a, b = images(2, (70, 86, 72))
    score = ms_ssim(a, b)
    assert 0.3 < score < 0.99
    assert ms_ssim(b, a) == pytest.approx(score, abs=1e-6)
    assert ms_ssim(a, a) == pytest.approx(1, abs=1e-6)
    assert score == pytest.approx(ms_ssim(*images(2, (80, 86, 80))), abs=0.1)  # no jump where windows get reflected


def test_it_falls_as_images_part():
    scores = [ms_ssim(*images(2, (36, 40, 33), noise)) for noise in (0.1, 0.3, 1.0)]
    assert scores == sorted(scores, reverse=True)


def test_constant_images_differ_in_luminance_alone():
    a, b = torch.full((1, 33, 34, 32), 0.2), torch.full((1, 33, 34, 32), 0.8)
    luminance = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert ms_ssim(a, b) == pytest.approx(luminance ** WEIGHTS[-1], abs=1e-4)


def test_an_inverted_image_is_0():
    a = images(1, (32, 32, 32))[0]
    assert ms_ssim(a, 1 - a) == 0


def test_one_scale_is_ssim_but_for_window_and_border():
    a, b = images(2, (30, 32, 34))
    assert ms_ssim(a, b, weights=(1.0,)) == pytest.approx(ssim(a, b), abs=0.1)


def test_the_masks_box_takes_away_the_shared_background():
    a, b = images(2, (32, 36, 34))
    padded = torch.zeros(2, 1, 60, 60, 60)
    padded[:, :, 5:37, 10:46, 20:54] = torch.stack([a, b])
    mask = torch.zeros(1, 60, 60, 60)
    mask[0, 5, 10, 20] = mask[0, 36, 45, 53] = 1
    assert ms_ssim(*padded, mask) == ms_ssim(*padded, mask[0] > 0) == pytest.approx(ms_ssim(a, b), abs=1e-6)
    assert ms_ssim(*padded) > ms_ssim(a, b)


def test_errors_name_what_is_wrong():
    a = torch.rand(1, 32, 32, 32)
    with pytest.raises(ValueError, match="differ in shape"):
        ms_ssim(a, a[:, 1:])
    with pytest.raises(UserError, match=r"5 scales needs 32 voxels a side, got \(31, 32, 32\)"):
        ms_ssim(a[:, 1:], a[:, 1:])
    with pytest.raises(UserError, match="mask is empty"):
        ms_ssim(a, a, torch.zeros(1, 32, 32, 32))


def published_means(a, b):
    """Means of SSIM and of structure on five scales with scipy's filter, in float64."""
    means = []
    for _ in range(5):
        x, y = (t[0].double().numpy() for t in (a, b))
        mx, my = gaussian_filter(x, 1.5), gaussian_filter(y, 1.5)
        vx, vy = gaussian_filter(x * x, 1.5) - mx**2, gaussian_filter(y * y, 1.5) - my**2
        structure = (2 * (gaussian_filter(x * y, 1.5) - mx * my) + 9e-4) / (vx + vy + 9e-4)
        full = (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4) * structure
        means.append((full.mean(), structure.mean()))
        a, b = (torch.nn.functional.avg_pool3d(t, 2) for t in (a, b))
    return np.array(means).T


def signed(count, noise):
    """Images in [-1, 1], alike enough that no mean is negative."""
    return images(count, (48, 52, 36), noise) * 2 - 1


def test_quirk_the_published_ms_ssim_takes_the_last_scale_four_times():
    a, b = signed(2, 0.2)
    full, structure = published_means(a, b)
    weights = np.array(WEIGHTS)
    as_written = np.prod(structure[:4] ** weights[:4]) * full[4] ** (4 * weights[4])
    assert published_ms_ssim(a, b) == pytest.approx(as_written, abs=1e-4)
    assert as_written < np.prod(structure[:4] ** weights[:4]) * full[4] ** weights[4] - 0.001
    assert published_ms_ssim(a, a) == pytest.approx(1, abs=1e-4)


def test_quirk_the_published_value_of_real_pairs_is_shifted():
    a, b = signed(2, 0.2)
    full, structure = (published_means(a, b) + 1) / 2
    shifted = np.prod(structure[:4] ** np.array(WEIGHTS)[:4]) * full[4] ** (4 * WEIGHTS[4])
    assert published_ms_ssim(a, b, shifted=True) == pytest.approx(shifted, abs=1e-4)
    assert shifted > published_ms_ssim(a, b) + 0.01


def test_quirk_the_published_ms_ssim_is_nan_where_structure_is_negative():
    a = signed(1, 0.2)[0]
    assert np.isnan(published_ms_ssim(a, -a))
