"""Fixed points by Anderson acceleration."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class FixedPoint(NamedTuple):
    """Where an iteration stands still.

    Attributes:
        point: x.
        iterations: evaluations that it took.
        residual: `‖f(x) - x‖ / ‖f(x)‖` at the last evaluation.
    """

    point: Tensor
    iterations: int
    residual: float


@torch.no_grad()
def anderson(
    step: Callable[[Tensor], Tensor],
    start: Tensor,
    iterations: int = 500,
    memory: int = 5,
    ridge: float = 1e-4,
    tolerance: float = 1e-3,
) -> FixedPoint:
    """Solve `x = f(x)`: the next point is the mixture of the last m answers whose residuals add up to the least.

    `x_{k+1} = Σ α_i f(x_i)`, with α summing to 1 and minimizing `‖Σ α_i (f(x_i) - x_i)‖² + ridge ‖α‖²`, the residuals
    in units of the last one's norm (Anderson, J. ACM 1965; Walker & Ni, SIAM J. Numerical Analysis 2011).

    Arguments:
        step: f, of and to tensors like `start`.
        iterations: evaluations of f at most.
        memory: m.
        tolerance: of `‖f(x) - x‖ / ‖f(x)‖`.

    Returns:
        The last answer f(x), after so many evaluations.
    """
    points, answers = list[Tensor](), list[Tensor]()
    x, error, done = start, float("inf"), 0
    for done in range(1, iterations + 1):  # noqa: B007
        answer = step(x)
        points, answers = [*points, x][-memory:], [*answers, answer][-memory:]
        error = float((answer - x).norm() / answer.norm().clamp(min=1e-12))
        if error < tolerance:
            break
        rest = torch.stack([(f - p).flatten() for f, p in zip(answers, points, strict=True)]).double()
        gram = rest @ rest.T / rest[-1].square().sum().clamp(min=1e-30)
        ones = gram.new_ones(len(gram))
        share = torch.linalg.solve(gram + ridge * torch.diag(ones), ones)
        share = (share / share.sum()).to(start)
        x = torch.einsum("m,m...->...", share, torch.stack(answers))
    return FixedPoint(answers[-1] if answers else start, done, error)
