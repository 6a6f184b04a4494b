"""Noise schedules."""

import math

import torch
from torch import Tensor


def _like(values: Tensor, x: Tensor) -> Tensor:
    """`[B]` values with trailing axes added, to multiply `x` `[B, *]`."""
    return values.to(x.device).view(-1, *[1] * (x.ndim - 1))


def alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """`alpha = sqrt(sigmoid(lambda))` and `sigma = sqrt(sigmoid(-lambda))`, float32, shaped like `log_snr`."""
    log_snr = log_snr.double()
    return torch.sigmoid(log_snr).sqrt().float(), torch.sigmoid(-log_snr).sqrt().float()


def diffuse(x: Tensor, noise: Tensor, log_snr: Tensor) -> Tensor:
    """`z_t = alpha_t x + sigma_t eps` for x and eps `[B, *]` and log-SNR `[B]` (or `[1]`)."""
    alpha, sigma = alpha_sigma(log_snr)
    return _like(alpha, x) * x + _like(sigma, x) * noise


class CosineSchedule:
    """Continuous cosine schedule cut at both ends: `lambda(t) = -2 log tan(a + t (b - a))` for t in [0, 1].

    `a = atan(exp(-max / 2))`, `b = atan(exp(-min / 2))`, so that lambda runs from `log_snr_max` at t = 0 to
    `log_snr_min` at t = 1 (Ho et al., Video Diffusion Models, 2022).
    """

    def __init__(self, log_snr_max: float = 20.0, log_snr_min: float = -20.0) -> None:
        if log_snr_max <= log_snr_min:
            raise ValueError(f"log_snr_max {log_snr_max} must exceed log_snr_min {log_snr_min}")
        self.log_snr_max, self.log_snr_min = log_snr_max, log_snr_min
        self._a = math.atan(math.exp(-log_snr_max / 2))
        self._b = math.atan(math.exp(-log_snr_min / 2))

    def log_snr(self, t: Tensor) -> Tensor:
        """Log-SNR of times in [0, 1], float64, shaped like `t`."""
        return -2 * torch.log(torch.tan(self._a + t.double() * (self._b - self._a)))


class LinearBetaSchedule:
    """The discrete schedule of DDPM: `beta_t` linear over t = 1..T, `alpha_bar_t = prod (1 - beta_s)`.

    (Ho et al., NeurIPS 2020.) Step 0 is the clean image: `alpha_bar_0 = 1`.
    """

    def __init__(self, beta_start: float = 1e-6, beta_end: float = 1e-2, steps: int = 2000) -> None:
        if not 0 < beta_start <= beta_end < 1 or steps < 1:
            raise ValueError(f"betas must rise within (0, 1), got {beta_start} to {beta_end} in {steps} steps")
        self.steps = steps
        beta = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64)
        self.beta = torch.cat([torch.zeros(1, dtype=torch.float64), beta])
        self.alpha_bar = torch.cumprod(1 - self.beta, dim=0)

    def log_snr(self, t: Tensor) -> Tensor:
        """Log-SNR of integer steps 0..T, float64, shaped like `t`; infinite at 0."""
        alpha_bar = self.alpha_bar.to(t.device)[t]
        return torch.log(alpha_bar) - torch.log1p(-alpha_bar)
