import numpy as np
import torch

from cortexgen.atlas.intensity import normalize
from cortexgen.preprocess import Normalize, Subject


def subject_of(native, template):
    subject = Subject(native.image.clone(), native.grid, template, "sub-01_T1w.nii.gz")
    subject.keep(native.image > 0)
    return subject


def test_intensities_are_scaled_as_registration_scales_them(native, template):
    subject = subject_of(native, template)
    Normalize()(subject)
    assert torch.allclose(subject.image, normalize(native.image), atol=1e-5)
    assert torch.allclose(normalize(subject.image), subject.image, atol=1e-3)


def test_both_percentiles_come_from_the_brain_alone(native, template):
    subject = subject_of(native, template)
    subject.image = torch.where(subject.mask, subject.image, 1e6)  # what is outside has no say
    inside = native.image[native.image > 0].numpy()
    low, high = np.percentile(inside, [5, 95])
    Normalize(95, 5)(subject)
    expected = np.clip((inside - low) / (high - low), 0, 1)
    assert np.allclose(subject.image[subject.mask].numpy(), expected, atol=1e-5)
