"""Samplers: from noise to a field, given a denoiser `(z, log_snr [B]) -> x0`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cortexgen.diffusion.parameterization import to_eps
from cortexgen.diffusion.schedule import CosineSchedule, alpha_sigma

SamplerName = Literal["ancestral", "ddim", "dpm++"]
Denoiser = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[], Tensor]
Seen = tuple[Tensor, Tensor]  # a level, and x0 as the denoiser saw it there

# Where fields are made: smooth fields have modes whose variance exceeds a voxel's a thousandfold, and which only much
# noise hides; above the upper end a voxel's noise is a fiftieth of its deviation.
LIMITS = (-16.0, 8.0)


class Sampler(ABC):
    """Walks from noise to x0 in `steps` calls of a denoiser.

    Attributes:
        levels: the log-SNR of each call, `[steps]` float64, rising; uniform between the limits.
    """

    def __init__(self, schedule: CosineSchedule, steps: int, limits: tuple[float, float]) -> None:
        low, high = max(limits[0], schedule.log_snr_min), min(limits[1], schedule.log_snr_max)
        self.levels = torch.linspace(low, high, steps, dtype=torch.float64)

    @abstractmethod
    def step(self, z: Tensor, now: Seen, then: Tensor, before: Seen | None, noise: Noise) -> Tensor:
        """z at the level `then`, from z `[B, *]` and what the denoiser says of it; `before` is of the step before."""

    def __call__(self, denoise: Denoiser, noise: Noise) -> Tensor:
        """Draw x0 `[B, *]`: what the denoiser says at the last level.

        Arguments:
            denoise: `(z [B, *], log_snr [B]) -> x0 [B, *]`.
            noise: gives standard normal noise `[B, *]`; called once, and by some samplers once more a step.
        """
        x0 = z = noise()
        before = None
        for level, then in zip(self.levels, [*self.levels[1:], None], strict=True):
            x0 = denoise(z, level.expand(len(z)).to(z.device))
            if then is not None:
                z, before = self.step(z, (level, x0), then, before, noise), (level, x0)
        return x0


def _ahead(now: Seen, then: Tensor, before: Seen | None) -> Tensor:
    """x0 as the denoiser would see it half a step on: a line through what it saw in this step and the one before."""
    level, x0 = now
    if before is None:
        return x0
    h = (then - level) / 2
    r = (level - before[0]) / 2 / h
    return x0 + ((x0 - before[1]) / (2 * r)).to(x0.dtype)


class Ancestral(Sampler):
    """DDPM: draws from `q(z_s | z_t, x0)`, variance `sigma_s² (1 - exp(lambda_t - lambda_s))`, lambda_s > lambda_t.

    With the denoiser's mean for x0, each step would leave out what that doesn't know of x0, and samples would vary too
    little. x0 is taken half a step on (SDE-DPM-Solver++(2M), Lu et al., 2022), whose own noise makes up for it.
    """

    def step(self, z: Tensor, now: Seen, then: Tensor, before: Seen | None, noise: Noise) -> Tensor:
        level, x0 = now[0], _ahead(now, then, before)
        alpha_t, _ = alpha_sigma(level)
        alpha_s, sigma_s = alpha_sigma(then)
        keep, c = torch.exp(level - then).float(), -torch.expm1(level - then).float()
        return alpha_s * (keep / alpha_t * z + c * x0) + sigma_s * c.sqrt() * noise()


class DDIM(Sampler):
    """Song et al., ICLR 2021, eta = 0: keep eps, change the level."""

    def step(self, z: Tensor, now: Seen, then: Tensor, before: Seen | None, noise: Noise) -> Tensor:
        level, x0 = now
        alpha, sigma = alpha_sigma(then)
        return alpha * x0 + sigma * to_eps(x0, z, level.view(1))


class DPMSolver2M(DDIM):
    """DPM-Solver++(2M) (Lu et al., 2022), in steps of h = half the change of log-SNR; the last one is DDIM's."""

    def step(self, z: Tensor, now: Seen, then: Tensor, before: Seen | None, noise: Noise) -> Tensor:
        if then == self.levels[-1]:
            return super().step(z, now, then, before, noise)
        _, sigma_t = alpha_sigma(now[0])
        alpha_s, sigma_s = alpha_sigma(then)
        h = (then - now[0]) / 2
        return sigma_s / sigma_t * z - alpha_s * torch.expm1(-h).float() * _ahead(now, then, before)


SAMPLERS: dict[SamplerName, type[Sampler]] = {"ancestral": Ancestral, "ddim": DDIM, "dpm++": DPMSolver2M}


def sampler_named(
    name: SamplerName, schedule: CosineSchedule, steps: int = 24, limits: tuple[float, float] = LIMITS
) -> Sampler:
    """The sampler of a name, with so many steps between limits of the log-SNR.

    Raises:
        ValueError: for an unknown name or fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name](schedule, steps, limits)
