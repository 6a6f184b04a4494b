"""Plug-and-play iterations against gradient descent and closed forms."""

import pytest
import torch

from cortexgen.diffusion import GaussianPrior, alpha_sigma
from cortexgen.losses import global_ncc, gradient_energy, local_ncc
from cortexgen.registration.plugandplay import Misfit, PlugAndPlay
from cortexgen.spatial import antialias, from_coarse, warp

SHAPE = (17, 15, 13)


@pytest.fixture
def pair():
    """A textured image, and the same moved by 1.2 voxels along H."""
    image = antialias(torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)), (5, 5, 5))
    image = (image - image.min()) / (image.max() - image.min())
    return image, warp(image, torch.zeros(1, 3, *SHAPE) + torch.tensor([0.0, 1.2, 0.0]).view(1, 3, 1, 1, 1))


def test_without_a_denoiser_it_is_gradient_descent(pair):
    """Against torch's own optimizer and its cosine schedule."""
    moving, fixed = pair
    field = torch.zeros(1, 3, 9, 8, 7, requires_grad=True)
    optimizer = torch.optim.SGD([field], lr=0.05 * fixed.numel())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for _ in range(20):
        optimizer.zero_grad()
        warped = warp(moving, from_coarse(field, SHAPE, 2))
        pearson = torch.corrcoef(torch.stack([warped.flatten(), fixed.flatten()]))[0, 1]
        (0.5 * gradient_energy(field) - pearson).backward()
        optimizer.step()
        schedule.step()
    misfit = Misfit(moving, fixed, smoothness=0.5)
    found = PlugAndPlay(20, 0.05, 0.7)(torch.zeros(1, 3, 9, 8, 7), misfit.gradient, torch.zeros_like)
    assert found.abs().max() > 0.1
    torch.testing.assert_close(found, field.detach(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("steps, window", [(0, 0), (7, 0), (0, 5)])
def test_it_finds_a_shift(pair, steps, window):
    moving, fixed = pair
    misfit = Misfit(moving, fixed, smoothness=0.2, steps=steps, window=window)
    start = torch.zeros(1, 3, 9, 8, 7)
    found = PlugAndPlay(60, 0.02 if window else 0.1, 0.0)(start, misfit.gradient, torch.zeros_like)
    before, after = (float(global_ncc(misfit.warped(field), fixed)) for field in (start, found))
    assert after > before + 0.6 * (1 - before)
    similarity = float(local_ncc(moving, fixed, window)) if window else before
    assert float(misfit(start)) == pytest.approx(-similarity, abs=1e-5)


def test_its_fixed_point_with_a_gaussian_prior_and_a_quadratic_misfit_is_the_maximum_a_posteriori():
    """With the denoiser of noise s, `(x - D(x)) / s² = (Σ + s²)^-1 x`: that of a Gaussian whose variance is larger by
    s². Then `∇g + τ R = 0` at `(P + τ s² (Σ + s²)^-1)^-1 P y` for `g = (x - y)ᵀ P (x - y) / 2`."""
    generator, shape = torch.Generator().manual_seed(1), (3, 4, 3, 5)
    count = 3 * 4 * 3 * 5
    spectrum = 0.05 + torch.rand(shape, generator=generator)
    prior = GaussianPrior(spectrum, torch.randn(4, count, generator=generator), cutoff=10.0)
    level = torch.tensor([1.3], dtype=torch.float64)
    alpha, sigma = (float(c) for c in alpha_sigma(level))
    covariance = prior_covariance(prior, count, shape)
    weights = 0.3 + torch.rand(1, *shape, generator=generator)
    seen = torch.randn(1, *shape, generator=generator)
    found = PlugAndPlay(400, 0.8, 0.8)(
        torch.zeros(1, *shape),
        lambda x: weights * (x - seen),
        lambda x: x - prior(alpha * x, level).mean,
    )
    noise = (sigma / alpha) ** 2
    precision = 0.8 * noise * torch.linalg.inv(covariance + noise * torch.eye(count).double())
    data = torch.diag(weights.flatten().double())
    expected = torch.linalg.solve(data + precision, data @ seen.flatten().double())
    torch.testing.assert_close(found.flatten().double(), expected, rtol=0, atol=1e-4)
    assert (expected - seen.flatten()).abs().max() > 0.1


def prior_covariance(prior, count, shape):
    """`E x xᵀ` of the prior, by its basis instead of by its draws."""
    from scipy.fft import idctn

    basis = torch.from_numpy(idctn(torch.eye(count).view(count, *shape).double().numpy(), axes=(2, 3, 4), norm="ortho"))
    basis = basis.reshape(count, count).T  # a column a coefficient
    modes = prior.modes.double()
    return basis @ (torch.diag(prior.spectrum.flatten().double()) + modes.T @ modes) @ basis.T
