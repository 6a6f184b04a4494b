"""The loss of stage 1: its parts, its two spaces, its nearness to folding."""

import pytest
import torch

from cortexgen.losses import RegistrationLoss, folding_penalty, gradient_energy, local_ncc
from cortexgen.losses.registration import foreground
from cortexgen.spatial import antialias, folded, integrate, invert, warp


def blob(seed: int, shape=(14, 16, 18)) -> torch.Tensor:
    texture = antialias(torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed)), (4, 4, 4))
    return (texture - texture.min()) / (texture.max() - texture.min())


def test_foreground_is_the_brain_and_a_margin():
    image = torch.zeros(1, 1, 9, 9, 9)
    image[0, 0, 4, 4, 4] = 1
    expected = torch.zeros(9, 9, 9)
    expected[2:7, 2:7, 2:7] = 1
    assert torch.equal(foreground(image)[0, 0], expected)


def test_total_is_the_weighted_sum():
    moving, fixed = blob(0), blob(1)
    velocity = 0.3 * torch.randn(1, 3, 14, 16, 18, generator=torch.Generator().manual_seed(2))
    loss = RegistrationLoss(5, smoothness=3.0, folding=50.0, field_downsample=1)
    u = integrate(velocity)
    expected = -local_ncc(warp(moving, u), fixed, 5) + 3 * gradient_energy(velocity) + 50 * folding_penalty(u)
    assert loss(moving, fixed, velocity).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_moving_space_swaps_images_and_time():
    moving, fixed = blob(0), blob(1)
    velocity = 0.3 * torch.randn(1, 3, 7, 8, 9, generator=torch.Generator().manual_seed(2))
    loss = RegistrationLoss(5, folding=10.0, foreground=True)
    assert torch.equal(loss(moving, fixed, velocity, "moving"), loss(fixed, moving, -velocity))
    assert not torch.equal(loss(moving, fixed, velocity, "moving"), loss(moving, fixed, velocity))


def test_the_moving_space_of_a_displacement_takes_its_inverse():
    u = antialias(torch.randn(1, 3, 14, 16, 18, generator=torch.Generator().manual_seed(2)), (4, 4, 4))
    u = (0.6 * u / u.std()).requires_grad_()
    fixed = blob(1)
    moving = warp(fixed, invert(u.detach() * 0.8))
    loss = RegistrationLoss(5, smoothness=0.0, field_downsample=1, integration_steps=0)
    here = loss(moving, fixed, u, "moving")
    back = invert(u.detach())
    assert here.item() == pytest.approx(-local_ncc(warp(fixed, back), moving, 5).item(), abs=1e-6)
    assert abs(here.item() + local_ncc(warp(fixed, -u.detach()), moving, 5).item()) > 0.005
    here.backward()
    with torch.no_grad():
        assert loss(moving, fixed, u - 0.1 * u.grad / u.grad.abs().max(), "moving") < here


def test_folding_penalty_of_known_maps():
    """Squeezing H by s has the determinant s everywhere: the penalty is max(0, 0.2 - s)², 0 above the margin."""
    h = torch.arange(6.0).view(1, 1, 1, 6, 1).expand(1, 1, 5, 6, 5)
    zero = torch.zeros(1, 1, 5, 6, 5)

    def squeezed(s: float) -> torch.Tensor:
        return torch.cat([zero, (s - 1) * h, zero], dim=1)

    assert folding_penalty(squeezed(0.5)) == 0
    assert folding_penalty(squeezed(0.05)).item() == pytest.approx(0.15**2, rel=1e-4)
    assert folding_penalty(squeezed(-0.3)).item() == pytest.approx(0.5**2, rel=1e-4)


def test_descending_the_penalty_unfolds():
    u = 0.4 * torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    assert folded(u) > 50
    u.requires_grad_()
    optimizer = torch.optim.Adam([u], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        folding_penalty(u).backward()
        optimizer.step()
    assert folded(u.detach()) == 0
