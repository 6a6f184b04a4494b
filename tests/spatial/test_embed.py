"""A field put into a larger grid: itself inside, nothing far outside, no tear between where it fades."""

import numpy as np
import pytest
import torch

from cortexgen.spatial import folded, integrate, warp
from cortexgen.spatial.embed import embed


def field(shape, channels=3, seed=0):
    return torch.randn(2, channels, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("low", [(0, 0, 0), (3, 2, 1), (5, 0, 4)])
def test_a_part_is_put_where_it_belongs_and_the_rest_is_zero(low):
    part = field((4, 5, 6))
    expected = np.zeros((2, 3, 9, 8, 10), np.float32)
    a, b, c = low
    expected[:, :, a : a + 4, b : b + 5, c : c + 6] = part
    np.testing.assert_array_equal(embed(part, low, (9, 8, 10)), expected)


def test_what_lies_outside_the_larger_grid_is_cut_off():
    part = field((8, 5, 6))
    out = embed(part, (-2, 1, -3), (4, 7, 2))
    np.testing.assert_array_equal(out[:, :, :, 1:6], part[:, :, 2:6, :, 3:5])
    assert not out[:, :, :, [0, 6]].any()


def test_it_fades_from_its_borders_value_to_zero():
    part = torch.ones(1, 3, 3, 3, 3) * torch.tensor([1.0, -2.0, 4.0]).view(1, 3, 1, 1, 1)
    out = embed(part, (10, 10, 10), (23, 23, 23), fade=7)
    profile = out[0, 2, 11, 11]
    assert torch.equal(profile, out[0, 2, :, 11, 11]) and torch.equal(profile, profile.flip(0))
    assert profile[10:13].tolist() == [4, 4, 4] and not profile[:3].any()
    steps = (profile[3:11] - profile[2:10]) / 4
    assert (steps > 0).all() and steps.max() < np.pi / 2 / 8 + 1e-3  # half a cosine, without a jump
    torch.testing.assert_close(out[0, 2, 5, 4, 11] / 4, profile[5] * profile[4] / 16)


def test_inside_the_part_images_are_warped_as_before_and_far_from_it_not_at_all():
    generator = torch.Generator().manual_seed(1)
    whole = torch.rand(1, 1, 40, 44, 42, generator=generator)
    coarse = 1.5 * torch.randn(1, 3, 4, 5, 5, generator=generator)
    part = integrate(torch.nn.functional.interpolate(coarse, (16, 20, 18), mode="trilinear", align_corners=True))
    inside = (..., slice(12, 28), slice(12, 32), slice(12, 30))
    torn, faded = (embed(part, (12, 12, 12), whole.shape[2:], fade) for fade in (0, 10))
    assert folded(torn).sum() > 0 == folded(faded).sum() == folded(part).sum()
    assert part.abs().max() < 4
    middle = (..., slice(4, 12), slice(4, 16), slice(4, 14))  # where nothing is pulled in from beyond the part
    torch.testing.assert_close(warp(whole, faded)[inside][middle], warp(whole[inside], part)[middle])
    torch.testing.assert_close(warp(whole, faded)[:, :, :2], whole[:, :, :2])
