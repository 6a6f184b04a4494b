"""Measures of how images look, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from cortexgen.metrics.texture import (
    LEVELS,
    SHOWN,
    _distance,
    edge_profile,
    gradient_energy,
    relative_power,
    tissue_histograms,
)

NAMES = ["Unknown", "Left-Cerebral-White-Matter", "Right-Cerebral-White-Matter", "Left-Cerebral-Cortex"]


def halves(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """White matter below the middle of the first axis, cortex above: an image of 0.8 and 0.5, and its labels."""
    labels = torch.full((1, n, n, n), 3)
    labels[:, : n // 2, : n // 2], labels[:, : n // 2, n // 2 :] = 1, 2
    return torch.where(labels == 3, 0.5, 0.8), labels


def test_histograms_of_normal_intensities_are_their_densities() -> None:
    image, labels = halves(40)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    found = tissue_histograms(image + 0.04 * noise, labels, NAMES)
    white, grey, ventricles = found
    assert ventricles.isnan().all() and SHOWN[2] == "Ventricles"
    for row, mean in ((white, 1.0), (grey, 0.625)):
        ends = [0.5 * (1 + math.erf((x - mean) / 0.05 / math.sqrt(2))) for x in LEVELS]
        np.testing.assert_allclose(row, np.diff(ends), atol=0.02)
        assert float(row.sum()) == pytest.approx(1)
    assert torch.equal(found[:2], tissue_histograms(0.5 * (image + 0.04 * noise), labels, NAMES)[:2])  # scale


def test_what_lies_beyond_the_bins_is_counted_in_the_last() -> None:
    image, labels = halves()
    image = torch.where(labels == 3, 5.0, image)
    assert float(tissue_histograms(image, labels, NAMES)[1, -1]) == 1


def test_without_white_matter_nothing_has_a_level() -> None:
    image, labels = halves()
    assert tissue_histograms(image, labels.clamp(min=3), NAMES).isnan().all()
    assert edge_profile(image, labels.clamp(min=3), NAMES, [1, 1, 1]).isnan().all()


@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
def test_an_edge_is_the_error_function_of_its_blur(sigma: float) -> None:
    image, labels = halves(48)
    blurred = gaussian_filter1d(image.double().numpy(), sigma, axis=1, mode="nearest") if sigma else image.numpy()
    profile = edge_profile(torch.from_numpy(blurred), labels, NAMES, [1.0, 1.0, 1.0])
    # bins of 1 mm around 0, 1, ...; voxels lie at -0.5, 0.5, ...: each is in the bin that begins there
    places = np.array([-4.5, -3.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    expected = 0.5 * (1 - np.vectorize(math.erf)(places / max(sigma, 1e-9) / math.sqrt(2)))
    means = [blurred[labels.numpy() == 3].mean(), blurred[labels.numpy() != 3].mean()]
    expected = (0.5 + 0.3 * expected - means[0]) / (means[1] - means[0])
    np.testing.assert_allclose(profile, expected, atol=0.02)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.9, 1.3), (7.0, 1.0, 3.0)])
def test_distances_are_right_as_far_as_they_are_needed(spacing: tuple[float, float, float]) -> None:
    mask = np.random.default_rng(0).random((14, 15, 16)) > 0.995
    assert mask.sum() > 3
    truth, found = distance_transform_edt(~mask, sampling=spacing), _distance(mask, spacing, 5.0)
    near = truth <= 5.0
    assert np.allclose(found[near], truth[near], rtol=1e-6) and (found[~near] > 5.0).all() and 0.1 < near.mean() < 0.95


def test_contrast_and_brightness_have_no_say_in_an_edge() -> None:
    image, labels = halves()
    found = [edge_profile(each, labels, NAMES, [2, 2, 2]) for each in (image, 0.3 * image + 0.2)]
    torch.testing.assert_close(*found, equal_nan=True, atol=1e-5, rtol=0)


def test_gradient_energy_of_a_wave() -> None:
    n, waves, spacing = 64, 4, 2.0
    x = torch.arange(n, dtype=torch.float64) * spacing
    image = torch.sin(2 * math.pi * waves * x / (n * spacing)).expand(1, n, n, n)
    inside = torch.zeros(1, n, n, n, dtype=torch.bool)
    inside[..., 16:48] = True  # two whole waves
    step = 2 * math.pi * waves / n  # central differences of a wave: sin(step) / spacing instead of its frequency
    expected = (math.sin(step) / spacing) ** 2
    assert gradient_energy(image, inside, [spacing] * 3) == pytest.approx(expected, rel=1e-9)
    assert math.isnan(gradient_energy(torch.zeros_like(image), inside, [spacing] * 3))


def test_power_does_not_depend_on_brightness() -> None:
    image = torch.rand(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(relative_power(3 * image, [1, 1, 1]), relative_power(image, [1, 1, 1]))
    assert relative_power(torch.zeros(1, 8, 8, 8), [1, 1, 1]).isnan().all()
