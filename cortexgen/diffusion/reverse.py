"""DiffuseMorph's reverse diffusion: single steps of the discrete chain."""

from collections.abc import Callable

import torch
from torch import Tensor

from cortexgen.diffusion.schedule import LinearBetaSchedule, diffuse
from cortexgen.errors import UserError


def synthesize(
    schedule: LinearBetaSchedule,
    predict: Callable[[Tensor, int], Tensor],
    moving: Tensor,
    steps: int = 200,
    generator: torch.Generator | None = None,
    states: list[tuple[int, Tensor]] | None = None,
) -> Tensor:
    """Reverse diffusion from a noised image (Kim et al., "DiffuseMorph", Algorithm 2).

    Starts from `sqrt(alpha_bar_T) m + sqrt(1 - alpha_bar_T) eps` and takes T single steps (line 7):
    `x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(1 - beta_t) + sigma_t z`, with z = 0 at t = 1.

    Arguments:
        predict: the noise in x_t, on the scale [-1, 1], of (x_t, t).
        moving: `[B, 1, D, H, W]` in [0, 1].
        steps: T, at most the schedule's; the paper takes up to 200.
        generator: of the noise.
        states: a list to append (t, x_t) to, five of them from T on.

    Returns:
        `[B, 1, D, H, W]` in [0, 1].

    Raises:
        UserError: for more steps than the schedule has.
    """
    if not 1 <= steps <= schedule.steps:
        raise UserError(f"steps: expected 1 to {schedule.steps}, got {steps}")

    def noise() -> Tensor:
        return torch.randn(moving.shape, generator=generator).to(moving)

    x = diffuse(2 * moving - 1, noise(), schedule.log_snr(torch.tensor([steps])))
    for t in range(steps, 0, -1):
        if states is not None and (steps - t) % -(-steps // 5) == 0:
            states.append((t, (x + 1) / 2))
        beta, bar, before = (float(c) for c in (schedule.beta[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]))
        x = (x - beta / (1 - bar) ** 0.5 * predict(x, t)) / (1 - beta) ** 0.5
        if t > 1:
            x = x + (beta * (1 - before) / (1 - bar)) ** 0.5 * noise()
    return ((x + 1) / 2).clamp(0, 1)
