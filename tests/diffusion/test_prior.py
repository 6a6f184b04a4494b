import torch

from cortexgen.diffusion import GaussianPrior, alpha_sigma, diffuse, to_x0


def test_posterior_is_that_of_the_full_covariance():
    """Against the conditional mean of a joint Gaussian with explicit matrices."""
    torch.manual_seed(0)
    modes = torch.linalg.qr(torch.randn(24, 3, dtype=torch.float64))[0].T.float()
    variances = torch.tensor([9.0, 2.0, 0.5])
    prior = GaussianPrior(modes.view(3, 2, 3, 2, 2), variances, 0.0)
    z, level = torch.randn(4, 2, 3, 2, 2), torch.tensor([-3.0, -1.0, 0.0, 2.0])
    mean, size = prior.posterior(z, level)
    for b in range(4):
        alpha, sigma = alpha_sigma(level[b])
        covariance = modes.T @ torch.diag(variances) @ modes
        gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(24))
        torch.testing.assert_close(mean[b].flatten(), gain @ z[b].flatten(), atol=1e-4, rtol=1e-3)
        left = torch.trace(covariance - alpha * gain @ covariance) / 24
        torch.testing.assert_close(size[b].flatten()[0] ** 2, left, atol=1e-5, rtol=1e-3)


def test_fit_finds_the_modes_and_what_they_leave():
    torch.manual_seed(1)
    truth = torch.linalg.qr(torch.randn(30, 2))[0].T
    fields = torch.randn(4000, 2) @ torch.diag(torch.tensor([4.0, 2.0])) @ truth + 0.1 * torch.randn(4000, 30)
    prior = GaussianPrior.fit(fields.view(-1, 3, 2, 5, 1), 2)
    torch.testing.assert_close(prior.variances, torch.tensor([16.0, 4.0]), rtol=0.1, atol=0)
    alignment = (prior.modes.flatten(1) * truth).sum(dim=1).abs()
    assert (alignment > 0.99).all()
    assert abs(prior.rest - 0.01 * 28 / 30) < 5e-4


def test_isotropic_prior_is_v_prediction():
    """With unit variance in every direction, x0 = mean - size v is what v-prediction says."""
    torch.manual_seed(2)
    prior = GaussianPrior(torch.eye(24).view(24, 2, 3, 2, 2), torch.ones(24), 0.0)
    x0, noise, v = (torch.randn(2, 2, 3, 2, 2) for _ in range(3))
    level = torch.tensor([-2.0, 1.5])
    z = diffuse(x0, noise, level)
    mean, size = prior.posterior(z, level)
    torch.testing.assert_close(mean - size * v, to_x0(v, z, level, "v"))
