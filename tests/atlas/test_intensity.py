import numpy as np
import pytest
import torch

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.plausibility import check_brain
from cortexgen.atlas.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import write_volume
from cortexgen.preprocess.reading import read_scan


@pytest.fixture(scope="module")
def brain():
    full = load_template()
    at = full.to(full.grid.at_spacing(4))
    return torch.where(at.mask, 900 * at.image, 0.0), at.grid


@pytest.mark.parametrize("offset", [1000, 100, 1e5])
def test_a_background_far_above_zero_is_called_so(brain, offset):
    image, _ = brain
    with pytest.raises(UserError, match=r"^x\.nii: its background is 1.*, expected 0 \(air\); subtract it"):
        normalize(image + offset, "x.nii")


def test_a_background_below_zero_is_taken_as_zero(brain):
    image, grid = brain
    for change in (lambda x: x - 1000, lambda x: (x - x.mean()) / x.std()):
        torch.testing.assert_close(normalize(change(image)), normalize(image), atol=1e-5, rtol=0)
    check_brain(normalize(image - 1000), grid)


def test_a_background_near_zero_is_left_as_it_is(brain):
    image, _ = brain
    assert float(normalize(image + 10).min()) > 0
    noisy = image + 300 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))  # no background at all
    assert normalize(noisy).max() == 1


def test_a_z_score_within_the_brain_has_lost_its_zero(brain):
    image, _ = brain
    inside = image > 0
    scored = torch.where(inside, (image - image[inside].mean()) / image[inside].std(), 0.0)
    with pytest.raises(UserError, match=r"with the background between, .* z-scored in a mask"):
        normalize(scored)
    ringing = image - 200 * (torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) < 0.01)
    assert normalize(ringing).max() == 1


@pytest.mark.parametrize("offset", [1000, -1000])
def test_preprocessing_takes_a_constant_background_as_zero(brain, tmp_path, offset):
    image, grid = brain
    write_volume(tmp_path / "a.nii", image + offset, grid, np.int16)
    np.testing.assert_allclose(read_scan(tmp_path / "a.nii")[0], image.to(torch.int16), atol=1)
