"""Gradient steps on a pair's velocity, against autograd and known shifts."""

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d

from cortexgen.losses import RegistrationLoss, local_ncc
from cortexgen.registration import refinement
from cortexgen.registration.refinement import FLOOR, SHARPNESS, Refinement, smoothed_step
from cortexgen.spatial import antialias, folded, folded_cubes, integrate, warp

SHAPE = (20, 22, 18)
STILL = torch.zeros(1, 3, *SHAPE)
INSIDE = (..., slice(3, -3), slice(3, -3), slice(3, -3))


def texture(seed: int = 0, scale: float = 6.0) -> torch.Tensor:
    """A smooth random image in [0, 1]."""
    image = antialias(torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(seed)), [scale] * 3)
    return (image - image.min()) / (image.max() - image.min())


def shifted(image: torch.Tensor) -> torch.Tensor:
    """The image moved by 1.2 voxels along H."""
    return warp(image, STILL + torch.tensor([0.0, 1.2, 0.0]).view(1, 3, 1, 1, 1))


@pytest.mark.parametrize("foreground", [False, True])
def test_steps_go_where_autograd_does_in_both_spaces_by_turns(foreground):
    moving, fixed = texture(scale=9.0), shifted(texture(scale=9.0))
    fixed[..., :4] = 0
    loss = RegistrationLoss(5, smoothness=3.0, foreground=foreground, field_downsample=1, floor=FLOOR)
    sharp = [image + SHARPNESS * (image - antialias(image, (3, 3, 3))) for image in (moving, fixed)]

    def gradient(velocity: torch.Tensor, space: str) -> torch.Tensor:
        v = velocity.clone().requires_grad_()
        sides = (loss(*sharp, v + shift, space) for shift in (1e-3, -1e-3))  # as central differences
        return sum(torch.autograd.grad(side, v)[0] for side in sides) / 2

    def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([a[INSIDE].flatten(), b[INSIDE].flatten()]))[0, 1])

    start = 0.1 * antialias(torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(8)), (4, 4, 4))
    one, two, alone = (
        start - Refinement(n, 0.01, 3.0, foreground=foreground, symmetric=symmetric, share=0.0)(start, moving, fixed)
        for n, symmetric in ((1, True), (2, True), (2, False))
    )
    here, there = gradient(start, "fixed"), gradient(start, "moving")
    assert likeness(one, here) > 0.93 and likeness(alone, here) > 0.93 and abs(likeness(one, there)) < 0.5
    # rates of .5 and .525, and a momentum of .7: .5 here + .525 (.7 here + there) / 1.7
    both = here + 0.43 * there
    assert likeness(two, both) > max(0.92, likeness(two, here) + 0.01)
    assert likeness(alone, here) > likeness(alone, both) + 0.01


def test_a_smoothed_step_is_scipys_by_a_triangle_twice():
    step = torch.randn(1, 3, 14, 12, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = step.numpy()
    for axis in (2, 3, 4):
        for _ in range(2):
            expected = convolve1d(expected, np.array([1, 2, 3, 2, 1]) / 9, axis=axis, mode="nearest")
    np.testing.assert_allclose(smoothed_step(step).numpy(), expected, atol=1e-6)


def test_the_rate_is_the_steps_root_mean_square_and_falls():
    moving, fixed = texture(), shifted(texture())
    for lr in (0.2, 0.05):
        velocity = Refinement(1, lr=lr, foreground=False)(STILL, moving, fixed)
        assert float(velocity.square().mean().sqrt()) == pytest.approx(lr / 2, rel=1e-3)
    lengths = [Refinement(n, foreground=False)(STILL, moving, fixed).square().mean().sqrt() for n in (8, 9)]
    assert all(length < 0.7 * n * 0.22 for length, n in zip(lengths, (8, 9), strict=True))


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_shift_is_found_from_nothing(symmetric):
    moving, fixed = texture(), shifted(texture())
    velocity = Refinement(60, smoothness=1.0, symmetric=symmetric)(STILL, moving, fixed)
    u, back = integrate(velocity), integrate(velocity, inverse=True)
    before, there = local_ncc(moving, fixed, 5), local_ncc(warp(moving, u), fixed, 5)
    assert there > before + 0.4 * (1 - before)
    if symmetric:
        assert local_ncc(warp(fixed, back), moving, 5) > before + 0.4 * (1 - before)
    assert not folded(u).any()
    assert u[:, 1:2][INSIDE].mean() > 0.8


def test_roughness_costs_what_it_weighs():
    moving, fixed = texture(), texture(1)  # which have nothing in common
    rough = [
        float(Refinement(12, smoothness=s)(STILL, moving, fixed).diff(dim=2).square().mean()) for s in (0.5, 4.0, 40.0)
    ]
    assert rough[1] < 0.8 * rough[0] and rough[2] < 0.8 * rough[1]


def test_noise_moves_less_than_structure():
    """Half of the image has contrasts far below the floor, which LNCC alone would follow as it follows the others."""
    moving, fixed = texture(), shifted(texture())
    weak = [torch.cat([0.5 + 0.02 * (image[:, :, :10] - 0.5), image[:, :, 10:]], dim=2) for image in (moving, fixed)]
    moved = Refinement(10)(STILL, *weak).norm(dim=1)[0]
    assert moved[:7].mean() < 0.25 * moved[12:].mean()


def test_intensities_come_together_as_far_as_they_are_weighted():
    """LNCC doesn't see a shading of the image; the squared difference does."""
    moving = texture()
    fixed = 0.6 * shifted(moving) + 0.4 * torch.linspace(0, 1, SHAPE[1])[:, None]
    left = []
    for weight in (0.0, 8.0, 80.0):
        velocity = Refinement(20, intensity=weight)(STILL, moving, fixed)
        left.append(float((warp(moving, integrate(velocity)) - fixed).square().mean()))
    assert left[1] < 0.97 * left[0] and left[2] < 0.97 * left[1]


def test_a_displacement_is_refined_without_squarings():
    moving, fixed = texture(), shifted(texture())
    u = Refinement(30, smoothness=2.0, squarings=0)(STILL, moving, fixed)
    before = local_ncc(moving, fixed, 5)
    assert local_ncc(warp(moving, u), fixed, 5) > before + 0.4 * (1 - before)


def test_where_the_flow_is_about_to_fold_it_is_smoothed_and_nowhere_else(monkeypatch):
    moving, fixed = texture(), texture(1)  # which have nothing in common
    tight, velocities = [], []
    for least in (-float("inf"), refinement.TIGHT):
        monkeypatch.setattr(refinement, "TIGHT", least)
        velocities.append(Refinement(8, lr=0.5, smoothness=0.5)(STILL, moving, fixed))
        tight.append(int(folded_cubes(integrate(velocities[-1]), 0.02).sum()))
    assert tight[1] < 0.5 * tight[0]
    same = (velocities[0] == velocities[1]).all(dim=1)
    assert 0.3 < same.float().mean() < 1
