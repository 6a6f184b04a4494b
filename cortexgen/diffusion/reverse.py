"""DiffuseMorph's reverse diffusion: single steps of the discrete chain."""

from collections.abc import Callable, Iterator

from torch import Tensor

from cortexgen.diffusion.schedule import LinearBetaSchedule


def reverse_steps(
    schedule: LinearBetaSchedule,
    predict: Callable[[Tensor, int], Tensor],
    x: Tensor,
    steps: int,
    noise: Callable[[], Tensor],
) -> Iterator[tuple[int, Tensor]]:
    """From x_T to x_0 (Kim et al., "DiffuseMorph", Algorithm 2, line 7).

    `x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(1 - beta_t) + sigma_t z`, with z = 0 at t = 1.

    Arguments:
        predict: the noise in x_t, of (x_t, t).
        x: x_T.
        steps: T, at most the schedule's.
        noise: draws z.

    Yields:
        (t, x_t) for t from T to 0.
    """
    yield steps, x
    for t in range(steps, 0, -1):
        beta, bar, before = (float(c) for c in (schedule.beta[t], schedule.alpha_bar[t], schedule.alpha_bar[t - 1]))
        x = (x - beta / (1 - bar) ** 0.5 * predict(x, t)) / (1 - beta) ** 0.5
        if t > 1:
            x = x + (beta * (1 - before) / (1 - bar)) ** 0.5 * noise()
        yield t - 1, x
