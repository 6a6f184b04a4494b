import math

import pytest
import torch
from monai.networks.schedulers import DDPMScheduler

from cortexgen.diffusion import CosineSchedule, LinearBetaSchedule, alpha_sigma, diffuse


def test_cosine_ends_and_middle():
    log_snr = CosineSchedule().log_snr(torch.tensor([0.0, 0.5, 1.0]))
    assert log_snr.dtype == torch.float64
    torch.testing.assert_close(log_snr, torch.tensor([20.0, 0.0, -20.0], dtype=torch.float64), atol=1e-9, rtol=0)


def test_cosine_honours_unequal_limits():
    log_snr = CosineSchedule(12, -7).log_snr(torch.linspace(0, 1, 101))
    assert log_snr[0].item() == pytest.approx(12)
    assert log_snr[-1].item() == pytest.approx(-7)
    assert (log_snr.diff() < 0).all()


def test_cosine_signal_is_the_cosine_of_time():
    t = torch.linspace(0, 1, 51)
    alpha, sigma = alpha_sigma(CosineSchedule().log_snr(t))
    torch.testing.assert_close(alpha, torch.cos(math.pi / 2 * t), atol=1e-4, rtol=0)
    torch.testing.assert_close(sigma, torch.sin(math.pi / 2 * t), atol=1e-4, rtol=0)


def test_variance_is_preserved_and_the_ratio_is_the_log_snr():
    log_snr = torch.linspace(-20, 20, 41, dtype=torch.float64)
    alpha, sigma = alpha_sigma(log_snr)
    assert alpha.dtype == sigma.dtype == torch.float32
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(41))
    torch.testing.assert_close(2 * (alpha.double() / sigma.double()).log(), log_snr, atol=1e-5, rtol=0)


def test_diffusion_of_unit_variance_data_keeps_it():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 20000, generator=generator)
    log_snr = torch.tensor([-20.0, 0.0, 20.0])
    z = diffuse(x, noise, log_snr)
    torch.testing.assert_close(z.var(dim=1), torch.ones(3), atol=0.05, rtol=0)
    torch.testing.assert_close(z[1], (x[1] + noise[1]) / math.sqrt(2))
    torch.testing.assert_close(z[0], noise[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(z[2], x[2], atol=1e-3, rtol=0)


def test_diffusion_takes_one_level_per_sample_of_a_volume():
    x, noise = torch.ones(2, 3, 4, 5, 6), torch.zeros(2, 3, 4, 5, 6)
    z = diffuse(x, noise, torch.tensor([math.log(1 / 3), math.log(3)]))
    torch.testing.assert_close(z[0], torch.full_like(z[0], 0.5))
    torch.testing.assert_close(z[1], torch.full_like(z[1], math.sqrt(3) / 2))


@pytest.mark.parametrize("start, end, steps", [(1e-6, 1e-2, 2000), (1e-4, 2e-2, 1000)])
def test_linear_betas_match_monai(start, end, steps):
    schedule = LinearBetaSchedule(start, end, steps)
    monai = DDPMScheduler(steps, schedule="linear_beta", beta_start=start, beta_end=end)
    torch.testing.assert_close(schedule.beta[1:].float(), monai.betas)
    torch.testing.assert_close(schedule.alpha_bar[1:].float(), monai.alphas_cumprod, atol=0, rtol=1e-3)
    alpha, sigma = alpha_sigma(schedule.log_snr(torch.arange(1, steps + 1)))
    torch.testing.assert_close(alpha, monai.alphas_cumprod.sqrt(), atol=1e-4, rtol=0)
    torch.testing.assert_close(sigma, (1 - monai.alphas_cumprod).sqrt(), atol=1e-3, rtol=0)


def test_default_linear_betas_end_in_noise():
    assert LinearBetaSchedule().alpha_bar[-1].item() == pytest.approx(4.4e-5, rel=0.01)


def test_step_nought_of_the_linear_schedule_is_the_clean_image():
    x, noise = torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(1))
    log_snr = LinearBetaSchedule().log_snr(torch.tensor([0, 0]))
    assert torch.equal(log_snr, torch.full_like(log_snr, torch.inf))
    assert torch.equal(diffuse(x, noise, log_snr), x)


def test_impossible_schedules_are_rejected():
    with pytest.raises(ValueError, match="exceed"):
        CosineSchedule(-1, 1)
    for betas in [(0.1, 0.01), (0.0, 0.01), (0.01, 1.0)]:
        with pytest.raises(ValueError, match="betas"):
            LinearBetaSchedule(*betas)
    with pytest.raises(ValueError, match="betas"):
        LinearBetaSchedule(steps=0)
