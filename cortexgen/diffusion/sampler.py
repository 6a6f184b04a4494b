"""Samplers: from noise to a field, given a denoiser `(z, log_snr [B]) -> x0`."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from cortexgen.diffusion.parameterization import to_eps
from cortexgen.diffusion.schedule import CosineSchedule, alpha_sigma

SamplerName = Literal["ancestral", "ddim", "dpm++"]
Denoiser = Callable[[Tensor, Tensor], Tensor]


# Where fields are made: smooth fields have modes whose variance exceeds a voxel's a thousandfold, and which only much
# noise hides; above the upper end a voxel's noise is a fiftieth of its deviation.
LIMITS = (-16.0, 8.0)


def sampling_log_snr(
    schedule: CosineSchedule, sampler: SamplerName, steps: int, limits: tuple[float, float] = LIMITS
) -> Tensor:
    """The log-SNR at which the denoiser is called, `[steps]` float64, rising.

    Ancestral sampling walks times uniform in t over the whole schedule; the deterministic samplers a grid uniform in
    log-SNR between `limits`.

    Raises:
        ValueError: for an unknown sampler or fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    if sampler not in get_args(SamplerName):
        raise ValueError(f"unknown sampler {sampler!r}; there are {', '.join(get_args(SamplerName))}")
    if sampler == "ancestral":
        return schedule.log_snr(torch.arange(steps, 0, -1, dtype=torch.float64) / steps)
    low, high = max(limits[0], schedule.log_snr_min), min(limits[1], schedule.log_snr_max)
    return torch.linspace(low, high, steps, dtype=torch.float64)


def _ancestral(z: Tensor, x0: Tensor, now: Tensor, then: Tensor, noise: Tensor) -> Tensor:
    """A draw from `q(z_s | z_t, x0)`, lambda_s > lambda_t: variance `sigma_s² (1 - exp(lambda_t - lambda_s))`."""
    alpha_t, _ = alpha_sigma(now)
    alpha_s, sigma_s = alpha_sigma(then)
    keep, c = torch.exp(now - then).float(), -torch.expm1(now - then).float()
    return alpha_s * (keep / alpha_t * z + c * x0) + sigma_s * c.sqrt() * noise


def _ddim(z: Tensor, x0: Tensor, now: Tensor, then: Tensor) -> Tensor:
    """Song et al., ICLR 2021, eta = 0: keep eps, change the level."""
    alpha, sigma = alpha_sigma(then)
    return alpha * x0 + sigma * to_eps(x0, z, now.view(1))


def _dpm(z: Tensor, x0: Tensor, now: Tensor, then: Tensor, before: tuple[Tensor, Tensor] | None) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022), in steps of h = half the change of log-SNR; `before` is (lambda, x0)."""
    _, sigma_t = alpha_sigma(now)
    alpha_s, sigma_s = alpha_sigma(then)
    h = (then - now) / 2
    if before is not None:
        r = (now - before[0]) / 2 / h
        x0 = x0 + ((x0 - before[1]) / (2 * r)).to(x0.dtype)
    return sigma_s / sigma_t * z - alpha_s * torch.expm1(-h).float() * x0


def sample_field(
    denoise: Denoiser,
    noise: Callable[[], Tensor],
    schedule: CosineSchedule,
    sampler: SamplerName = "dpm++",
    steps: int = 24,
    limits: tuple[float, float] = LIMITS,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Draw x0: one call of the denoiser per step, the last one's x0 is the sample.

    Arguments:
        denoise: `(z [B, *], log_snr [B]) -> x0 [B, *]`.
        noise: gives standard normal noise `[B, *]`; called once, and once more a step for "ancestral".
        schedule: of the log-SNR.
        sampler: "ancestral" (DDPM), "ddim", or "dpm++", which is second order but for its first and last step.
        steps: number of network evaluations.
        limits: see `sampling_log_snr`.
        progress: called with the number of finished steps.

    Returns:
        `[B, *]`.
    """
    levels = sampling_log_snr(schedule, sampler, steps, limits)
    z = noise()
    before: tuple[Tensor, Tensor] | None = None
    for i, now in enumerate(levels):
        x0 = denoise(z, now.expand(z.shape[0]).to(z.device))
        if progress is not None:
            progress(i + 1)
        if i + 1 == len(levels):
            return x0
        then = levels[i + 1]
        if sampler == "ancestral":
            z = _ancestral(z, x0, now, then, noise())
        elif sampler == "ddim" or i + 2 == len(levels):
            z = _ddim(z, x0, now, then)
        else:
            z = _dpm(z, x0, now, then, before)
        before = (now, x0)
    raise AssertionError("unreachable: steps >= 1")
