import itertools
import math

import pytest
import torch

from cortexgen.diffusion import CosineSchedule, alpha_sigma, sampler_named
from cortexgen.diffusion.sampler import LIMITS

MEAN, STD = 0.7, 0.35
SCHEDULE = CosineSchedule()


def _posterior_mean(z, log_snr):
    """The best denoiser of data N(MEAN, STD²), in float64."""
    snr = log_snr.double().exp().view(-1, *[1] * (z.ndim - 1))
    alpha = torch.sigmoid(log_snr.double()).sqrt().view_as(snr)
    return ((snr * z / alpha + MEAN / STD**2) / (snr + 1 / STD**2)).to(z.dtype)


def _error(sampler, steps):
    """Mean distance from the probability flow, which maps a Gaussian onto another one by quantiles."""
    start = torch.linspace(-2.5, 2.5, 51, dtype=torch.float64).view(1, -1)
    out = sampler_named(sampler, SCHEDULE, steps, (-10.0, 10.0))(_posterior_mean, lambda: start)
    ends = [torch.sigmoid(torch.tensor(s, dtype=torch.float64)) for s in (-10.0, 10.0)]
    (a_t, s_t), (a_0, s_0) = (((STD**2 * p + 1 - p).sqrt(), p.sqrt()) for p in ends)
    last = s_0 * MEAN + a_0 / a_t * (start - s_t * MEAN)
    return (out - _posterior_mean(last, torch.tensor([10.0]))).abs().mean().item()


def test_ancestral_sampling_draws_from_the_data_distribution():
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 20, 20, 10)
    sampler = sampler_named("ancestral", SCHEDULE, 256)
    out = sampler(_posterior_mean, lambda: torch.randn(shape, generator=generator))
    assert out.shape == shape
    assert out.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert out.std().item() == pytest.approx(STD, rel=0.01)
    # Fourth moment of a Gaussian.
    assert ((out - MEAN) / out.std()).pow(4).mean().item() == pytest.approx(3, abs=0.2)


def _variance(sampler, steps, data, limits):
    """Of the samples of data N(0, data) as the sampler draws them, to rounding.

    Its steps are linear in what is drawn: let draw k be the k-th unit vector, and the coefficients come out.
    """

    def denoise(z, log_snr):
        snr = log_snr.double().exp()
        return z * snr * data / (snr * data + 1) / torch.sigmoid(log_snr.double()).sqrt()

    draws = iter(torch.eye(steps, dtype=torch.float64))
    return sampler_named(sampler, SCHEDULE, steps, limits)(denoise, lambda: next(draws)[None]).square().sum().item()


@pytest.mark.parametrize("limits", [(-20.0, 20.0), LIMITS, (-14.0, 4.0)], ids=["full", "default", "partial"])
@pytest.mark.parametrize("data", [1e-2, 0.12, 1.0, 100.0, 1e4])
@pytest.mark.parametrize(
    "sampler, steps, tolerance",
    [("ancestral", 256, 0.01), ("ancestral", 50, 0.06), ("ancestral", 24, 0.13), ("dpm++", 50, 0.06)],
)
def test_samples_vary_as_the_data_do(sampler, steps, tolerance, data, limits):
    """Big modes, which are decided in much noise, as small ones; what the last level's mean leaves out is not there."""
    snr = math.exp(limits[1])
    seen = data * snr * data / (snr * data + 1)
    assert _variance(sampler, steps, data, limits) / seen == pytest.approx(1, abs=tolerance)


def test_ddim_is_of_first_order():
    errors = [_error("ddim", n) for n in (24, 48, 96)]
    for coarse, fine in itertools.pairwise(errors):
        assert 1.7 < coarse / fine < 2.4


def test_dpm_is_of_second_order():
    errors = [_error("dpm++", n) for n in (24, 48, 96)]
    for coarse, fine in itertools.pairwise(errors):
        assert 3.3 < coarse / fine < 5.5


@pytest.mark.parametrize("steps", [8, 16, 24])
def test_dpm_beats_ddim_for_the_same_steps(steps):
    assert _error("dpm++", steps) < 0.6 * _error("ddim", steps)


@pytest.mark.parametrize("steps", [2, 3])
def test_first_and_last_step_of_dpm_are_those_of_ddim(steps):
    assert _error("dpm++", steps) == pytest.approx(_error("ddim", steps), rel=1e-5)
    assert _error("dpm++", 4) != pytest.approx(_error("ddim", 4), rel=1e-2)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
def test_one_step_returns_the_denoised_noise(sampler):
    noise = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    out = sampler_named(sampler, SCHEDULE, 1)(_posterior_mean, lambda: noise)
    torch.testing.assert_close(out, _posterior_mean(noise, torch.full((2,), -16.0)))


@pytest.mark.parametrize("sampler, draws", [("ancestral", 7), ("ddim", 1), ("dpm++", 1)])
def test_each_step_denoises_once_at_a_rising_level(sampler, draws):
    levels, drawn = [], []

    def denoise(z, log_snr):
        assert log_snr.shape == (2,) and log_snr[0] == log_snr[1]
        levels.append(log_snr[0].item())
        return 0.5 * z

    def noise():
        drawn.append(1)
        return torch.ones(2, 3, 2, 2, 2)

    out = sampler_named(sampler, SCHEDULE, 7)(denoise, noise)
    assert out.isfinite().all()
    assert len(levels) == 7 and levels == sorted(levels)
    assert len(drawn) == draws


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
def test_sure_denoiser_is_believed(sampler):
    target = torch.linspace(-2, 2, 24).view(1, 3, 2, 2, 2)
    seen = []

    def denoise(z, log_snr):
        seen.append((z, *alpha_sigma(log_snr)))
        return target

    generator = torch.Generator().manual_seed(0)
    out = sampler_named(sampler, SCHEDULE, 20)(denoise, lambda: torch.randn(1, 3, 2, 2, 2, generator=generator))
    assert torch.equal(out, target)
    # On the way z is alpha x0 + sigma eps, with eps of unit size.
    eps = torch.stack([(z - a * target) / s for z, a, s in seen[1:]])
    assert 0.5 < eps.std() < 1.5


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++"])
def test_levels_are_uniform_between_limits_and_the_schedules_ends(sampler):
    assert sampler_named(sampler, SCHEDULE, 5, (-6, 6)).levels.tolist() == [-6, -3, 0, 3, 6]
    assert sampler_named(sampler, CosineSchedule(4, -2), 4).levels.tolist() == [-2, 0, 2, 4]


def test_unknown_samplers_and_no_steps_are_rejected():
    with pytest.raises(ValueError, match="euler"):
        sampler_named("euler", SCHEDULE, 5)
    with pytest.raises(ValueError, match="at least one step"):
        sampler_named("ddim", SCHEDULE, 0)
