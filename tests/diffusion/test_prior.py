"""The Gaussian prior of fields against dense linear algebra and scipy."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from cortexgen.diffusion import (
    CosineSchedule,
    GaussianPrior,
    alpha_sigma,
    cosine_transform,
    diffuse,
    fit_priors,
    sampler_named,
    to_x0,
)

SHAPE = (2, 3, 4, 3)


def prior_of(trust=0.85):
    torch.manual_seed(0)
    fields = torch.randn(6, *SHAPE)
    return fitted(fields - fields.mean(dim=0), 4, trust, 0.4)


def fitted(fields, count, trust, cutoff):
    return fit_priors(fields, [0] * len(fields), count, trust, cutoff)[0]


def dense(prior):
    """Σ in voxels, `[n, n]` float64."""
    n = prior.spectrum.numel()
    basis = scipy.fft.dctn(np.eye(n).reshape(n, *SHAPE), axes=(2, 3, 4), norm="ortho").reshape(n, n).T
    basis = torch.from_numpy(np.ascontiguousarray(basis))
    modes = torch.zeros(len(prior.modes), n, dtype=torch.float64)
    modes[:, prior.low] = prior.modes.double()
    return basis.T @ (modes.T @ modes + torch.diag(prior.spectrum.flatten().double())) @ basis


def test_the_cosine_transform_is_scipys():
    x = torch.randn(2, 3, 5, 6, 7)
    expected = scipy.fft.dctn(x.numpy(), axes=(2, 3, 4), norm="ortho")
    assert torch.allclose(cosine_transform(x), torch.from_numpy(expected), atol=1e-5)
    assert torch.allclose(cosine_transform(cosine_transform(x), inverse=True), x, atol=1e-5)


@pytest.mark.parametrize("level", [-6.0, 0.0, 3.0])
def test_the_posterior_is_that_of_dense_algebra(level):
    prior = prior_of()
    z, log_snr = torch.randn(2, *SHAPE), torch.full((2,), level)
    mean, size = prior(z, log_snr)
    covariance = dense(prior).float()
    alpha, sigma = (float(c[0]) for c in alpha_sigma(log_snr))
    gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(len(covariance)))
    assert torch.allclose(mean.flatten(1), z.flatten(1) @ gain.T, atol=1e-4)
    left = torch.trace(covariance - alpha * gain @ covariance) / len(covariance)
    assert torch.allclose(size.flatten(), left.sqrt().expand(2), atol=1e-4)


def test_strong_modes_cost_no_accuracy():
    """A cohort's first modes have thousands of times a voxel's variance; float32 keeps six digits all the same."""
    weak = prior_of()
    prior = GaussianPrior(weak.spectrum, 50 * weak.modes, weak.cutoff)
    z, covariance = torch.randn(1, *SHAPE), dense(prior)
    for level in (0.0, 8.0):
        alpha, sigma = (c.double() for c in alpha_sigma(torch.tensor(level)))
        noisy = alpha**2 * covariance + sigma**2 * torch.eye(len(covariance))
        expected = alpha * covariance @ torch.linalg.solve(noisy, z.flatten().double())
        found = prior(z, torch.tensor([level]))[0].flatten().double()
        assert (found - expected).norm() < 2e-6 * expected.norm()


def test_levels_of_a_batch_are_independent():
    prior, z = prior_of(), torch.randn(2, *SHAPE)
    levels = torch.tensor([-3.0, 1.0])
    together = prior(z, levels)[0]
    alone = torch.cat([prior(z[k : k + 1], levels[k : k + 1])[0] for k in range(2)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_a_levels_core_is_factorized_once(monkeypatch):
    """Not once for each sample, nor again when the next sample comes to that level, after a move to where the prior is;
    many columns of modes or few."""
    prior, z = prior_of(), torch.randn(3, *SHAPE)
    expected = prior(z, torch.tensor([0.5, -2.0, 0.5]))
    count, inverse = [], torch.linalg.inv
    monkeypatch.setattr(torch.linalg, "inv", lambda m: (count.append(1), inverse(m))[1])
    monkeypatch.setattr("cortexgen.diffusion.prior.COLUMNS", 5)
    again = prior_of()
    for k in range(3):
        found = again.to("cpu")(z, torch.tensor([0.5, -2.0, 0.5]))
        assert len(count) == 2, k
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    monkeypatch.setattr("cortexgen.diffusion.prior.LEVELS", 4)
    for level in range(10):  # in training no level comes back
        again(z[:1], torch.tensor([float(level)]))
        assert len(again._cores) <= 4


def test_fitting_keeps_the_total_variance():
    torch.manual_seed(0)
    fields = torch.randn(6, *SHAPE)
    fields = fields - fields.mean(dim=0)
    for trust in (0.2, 0.9):
        covariance = dense(fitted(fields, 4, trust, 0.4))
        assert float(torch.trace(covariance)) == pytest.approx(float(fields.square().sum() / len(fields)), rel=1e-4)


def test_modes_are_the_principal_ones():
    """Full trust, all frequencies: the variance along the fields' first component is its eigenvalue, at least."""
    torch.manual_seed(0)
    fields = torch.randn(6, *SHAPE)
    fields = fields - fields.mean(dim=0)
    prior = fitted(fields, 5, 1.0, 1.0)
    _, singular, vectors = torch.linalg.svd(fields.flatten(1), full_matrices=False)
    along = vectors[0] @ dense(prior).float() @ vectors[0]
    assert float(along) == pytest.approx(float(singular[0] ** 2 / 6), rel=1e-3)


def test_samples_have_the_covariance():
    prior = prior_of()
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([prior.sample(generator).flatten() for _ in range(4000)])
    expected = dense(prior)
    assert float((draws.T @ draws / len(draws) - expected).abs().max()) < 0.12 * float(expected.diagonal().max())


@pytest.mark.parametrize("sampler, steps", [("ancestral", 50), ("dpm++", 24)])
def test_samplers_draw_from_it(sampler, steps):
    """Along its strongest modes, which much noise alone hides, and in all."""
    weak = prior_of()
    prior = GaussianPrior(weak.spectrum, 10 * weak.modes, weak.cutoff)
    generator, draws = torch.Generator().manual_seed(2), (6000, *SHAPE)
    sample = sampler_named(sampler, CosineSchedule(), steps)
    found = sample(lambda z, level: prior(z, level).mean, lambda: torch.randn(draws, generator=generator)).flatten(1)
    variances, directions = torch.linalg.eigh(dense(prior))
    ratio = (found.double() @ directions).square().mean(dim=0) / variances
    assert float(ratio[-4:].mean()) == pytest.approx(1, abs=0.04)
    assert float(found.square().sum(dim=1).mean() / variances.sum()) == pytest.approx(1, abs=0.04)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.04)


def test_a_draw_is_float32_under_autocast():
    prior = prior_of()
    expected = prior.sample(torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(prior.sample(torch.Generator().manual_seed(1)), expected)


def test_an_isotropic_prior_is_v_prediction():
    prior = GaussianPrior(torch.ones(SHAPE), torch.zeros(0, 72), 1.0)
    x, noise, log_snr = torch.randn(3, *SHAPE), torch.randn(3, *SHAPE), torch.tensor([-4.0, 0.0, 5.0])
    z = diffuse(x, noise, log_snr)
    mean, size = prior(z, log_snr)
    alpha, sigma = (c.view(-1, 1, 1, 1, 1) for c in alpha_sigma(log_snr))
    v = alpha * noise - sigma * x
    assert torch.allclose((x - mean) / size, -v, atol=1e-4)
    assert torch.allclose(mean + size * -v, to_x0(v, z, log_snr, "v"), atol=1e-4)


class WithPrior(nn.Module):
    def __init__(self, prior):
        super().__init__()
        self.prior = prior


def test_it_is_part_of_the_module_that_holds_it():
    prior, z, level = prior_of(), torch.randn(1, *SHAPE), torch.tensor([0.5])
    expected = prior(z, level)
    other = WithPrior(GaussianPrior(torch.ones(SHAPE), torch.zeros_like(prior.modes), prior.cutoff))
    different = other.prior(z, level).mean
    other.load_state_dict(WithPrior(prior).state_dict())
    assert set(other.state_dict()) == {"prior.spectrum", "prior.modes"} and not list(other.parameters())
    assert torch.equal(other.prior(z, level).mean, expected.mean)  # what it worked out before is forgotten
    assert not torch.allclose(different, expected.mean)
    other.bfloat16().float()
    rounded = GaussianPrior(prior.spectrum.bfloat16().float(), prior.modes.bfloat16(), prior.cutoff)
    assert torch.equal(other.prior(z, level).mean, rounded(z, level).mean)
    assert other.to("meta").prior.low.device.type == "meta"
