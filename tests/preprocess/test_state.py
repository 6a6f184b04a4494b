import pytest
import torch
from scipy import ndimage

from cortexgen.atlas.intensity import constant_background
from cortexgen.preprocess.state import Subject, foreground, otsu


def head(template, noise):
    """The brain, grown by two voxels, in noisy or silent air."""
    inside = torch.from_numpy(ndimage.binary_dilation(template.mask[0].numpy(), iterations=2))[None]
    air = noise * torch.randn(inside.shape, generator=torch.Generator().manual_seed(0)).abs()
    return torch.where(inside, 0.5 + template.image / 2, air), inside


@pytest.mark.parametrize("value", [0.0, -7.5])
def test_a_masked_background_is_found_whatever_its_value(template, value):
    image, inside = head(template, 0.0)
    image = torch.where(inside, image, value)
    assert constant_background(image) == value
    assert torch.equal(foreground(image), inside)


@pytest.mark.parametrize(("share", "constant"), [(0.25, False), (0.36, True)])
def test_a_background_is_constant_where_a_third_of_all_voxels_are_alike(share, constant):
    image = 0.1 + torch.rand(1, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    rim = torch.ones(20, 20, 20, dtype=torch.bool)
    rim[1:-1, 1:-1, 1:-1] = False  # 27 %
    places = torch.cat([torch.nonzero(rim.flatten()), torch.nonzero(~rim.flatten())]).flatten()
    image.view(-1)[places[: int(share * 8000)]] = -3.0
    assert (constant_background(image) == -3.0) == constant


def test_noise_around_a_head_is_no_constant_but_below_otsus_threshold(template):
    image, inside = head(template, 0.02)
    assert constant_background(image) is None
    assert 0.05 < otsu(image) < 0.5
    assert torch.equal(foreground(image), inside)


def test_a_brain_that_is_kept_is_zero_around_it_and_nowhere_negative(template):
    image = torch.randn(template.image.shape, generator=torch.Generator().manual_seed(0))
    subject = Subject(image, template.grid, template, "scan")
    subject.keep(template.mask)
    assert float(subject.image.min()) == 0 and not subject.image[~template.mask].any()
    assert torch.equal(subject.image[template.mask], image[template.mask].clamp(min=0))
    assert torch.equal(subject.inside, template.mask)
