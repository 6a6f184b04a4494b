import pytest
import torch

from cortexgen.preprocess import Denoise, Subject


@pytest.mark.parametrize("noise", ["Rician", "Gaussian"])
def test_denoising_takes_most_of_the_noise_and_leaves_the_background(template, noise):
    clean, mask = 1000 * template.image, template.mask
    noisy = clean * mask + 60 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)) * mask
    subject = Subject(noisy, template.grid, template, "scan")
    subject.keep(mask)
    white = mask & (template.labels == template.classes.index("Cerebral-White-Matter"))
    before = (subject.image - clean)[white].std()
    Denoise(noise)(subject)
    assert float((subject.image - clean)[white].std()) < 0.7 * float(before)
    assert not subject.image[~mask].any() and float(subject.image.min()) >= 0
