"""The objective against its formula, and against what it means for each prediction."""

import pytest
import torch

from cortexgen.diffusion import GaussianPrior, alpha_sigma, diffuse, to_eps, to_x0
from cortexgen.losses import DenoisingLoss

SHAPE = (3, 5, 6, 4)
LEVELS = torch.tensor([-2.0, 1.5])


def drawn(count):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, *SHAPE, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_it_is_zero_for_what_says_the_truth_alone(prediction):
    x0, noise = drawn(2)
    z, (alpha, sigma) = diffuse(x0, noise, LEVELS), (c.view(-1, 1, 1, 1, 1) for c in alpha_sigma(LEVELS))
    truth = {"eps": to_eps(x0, z, LEVELS), "v": (alpha * z - x0) / sigma, "x0": x0}[prediction]
    loss = DenoisingLoss(prediction, gradient_weight=0.5)
    assert float(loss(truth, x0, noise, LEVELS)) < 1e-9
    assert float(loss(truth + 0.1, x0, noise, LEVELS)) == pytest.approx(0.01, rel=1e-3)  # a constant has no gradient
    torch.testing.assert_close(to_x0(truth, z, LEVELS, prediction), x0, atol=1e-4, rtol=0)


def test_the_gradient_term_is_the_mean_square_of_differences():
    output, x0, noise = drawn(3)
    error = (output - noise).double().numpy()
    steps = [
        ((error.take(range(1, n), axis) - error.take(range(n - 1), axis)) ** 2).mean()
        for axis, n in zip((2, 3, 4), SHAPE[1:], strict=True)
    ]
    expected = (error**2).mean() + 0.3 * sum(steps) / 3
    assert float(DenoisingLoss("eps", 0.3)(output, x0, noise, LEVELS)) == pytest.approx(expected, rel=1e-5)


def test_after_a_prior_what_it_leaves_is_learned_in_units_of_its_size():
    x0, noise = drawn(2)
    prior = GaussianPrior(torch.rand(SHAPE) + 0.1, torch.zeros(0, 360), 1.0)
    guess = prior(diffuse(x0, noise, LEVELS), LEVELS)
    loss = DenoisingLoss()
    assert float(loss((x0 - guess.mean) / guess.size, x0, noise, LEVELS, guess)) == 0
    nothing = loss(torch.zeros_like(x0), x0, noise, LEVELS, guess)
    expected = ((x0 - guess.mean).square().mean(dim=(1, 2, 3, 4)) / guess.size.flatten() ** 2).mean()
    torch.testing.assert_close(nothing, expected)


def test_with_an_isotropic_prior_it_is_that_of_v():
    output, x0, noise = drawn(3)
    prior = GaussianPrior(torch.ones(SHAPE), torch.zeros(0, 360), 1.0)
    guess = prior(diffuse(x0, noise, LEVELS), LEVELS)
    loss = DenoisingLoss("v", 0.2)
    torch.testing.assert_close(loss(-output, x0, noise, LEVELS, guess), loss(output, x0, noise, LEVELS))
