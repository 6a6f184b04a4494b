"""Labels fitted to an image, against anatomy that is known."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from cortexgen.atlas.fitting import fit_labels, fitted_classes
from cortexgen.errors import UserError
from cortexgen.metrics.overlap import dice

CLASSES = ("Unknown", "Cerebral-White-Matter", "Cerebral-Cortex", "Thalamus")
LEVELS = torch.tensor([0.25, 0.85, 0.6, 0.7])


def folded(amplitude=3.0, size=40):
    """A ball of white matter with a wavy border, a ribbon of cortex of 4 voxels, fluid, and a thalamus inside."""
    axis = torch.arange(size, dtype=torch.float32) - size / 2 + 0.5
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt() + amplitude * torch.sin(6 * torch.atan2(y, x)) * (1 - (z / size * 2) ** 2)
    labels = torch.zeros(size, size, size, dtype=torch.int64)
    labels[radius < 15] = 2
    labels[radius < 11] = 1
    labels[(x**2 + y**2 + z**2).sqrt() < 4] = 3
    brain = radius < 18
    return labels[None], brain[None]


def pictured(labels, brain, noise=0.02, slope=0.0):
    """The labels as a scanner sees them, with partial volume, noise and a brightness that rises along one axis."""
    image = torch.from_numpy(gaussian_filter(LEVELS[labels[0]].numpy(), 0.4))[None]
    image = image + noise * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(1 - slope, 1 + slope, image.shape[-1])
    return (image * ramp).clamp(0.01, 1) * brain


@pytest.mark.parametrize("slope", [0.0, 0.15])
def test_the_cortex_moves_to_where_the_image_has_it(slope):
    truth, brain = folded()
    smooth, _ = folded(amplitude=0.0)  # what a field leaves that knows nothing of these folds
    fitted = fit_labels(pictured(truth, brain, slope=slope), smooth, CLASSES, 2.0)
    for k in (1, 2):
        before, after = (float(dice(x, truth, 4)[..., k - 1].mean()) for x in (smooth, fitted))
        assert before < 0.8
        assert after > 0.93


def test_deep_structures_stay_and_nothing_is_labelled_outside():
    truth, brain = folded()
    smooth, _ = folded(amplitude=0.0)
    fitted = fit_labels(pictured(truth, brain), smooth, CLASSES, 2.0)
    assert torch.equal(fitted == 3, smooth == 3)
    assert not fitted[~brain].any()


def test_right_labels_stay_nearly_as_they_are():
    truth, brain = folded()
    fitted = fit_labels(pictured(truth, brain, noise=0.01), truth, CLASSES, 2.0)
    assert float((fitted != truth).float().mean()) < 0.003


def test_an_image_without_tissue_and_labels_without_names():
    truth, brain = folded()
    nothing = fit_labels(pictured(truth, brain), torch.zeros_like(truth), CLASSES, 2.0)
    assert not nothing.any()
    assert fitted_classes(("Unknown", "a")) is None
    with pytest.raises(UserError, match="needs the classes Cerebral-Cortex and Cerebral-White-Matter, got Unknown, a"):
        fit_labels(pictured(truth, brain), truth, ("Unknown", "a"), 2.0)
