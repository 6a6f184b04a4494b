"""Whether samples lie where real subjects do, and whether they reach all of them, from nearest neighbours."""

import math
from typing import NamedTuple

from torch import Tensor

from cortexgen.errors import UserError


class Coverage(NamedTuple):
    """Shares that balls around real subjects give, each reaching to the subject's k-th nearest real neighbour.

    Attributes:
        precision: share of samples that lie in any ball (Kynkäänniemi et al., NeurIPS 2019). One outlier's large ball
            raises it.
        density: mean number of balls that a sample lies in, over k (Naeem et al., ICML 2020): outliers count little; 1
            is expected of perfect samples, and more of samples that crowd in the middle.
        coverage: share of real subjects with a sample in their ball (Naeem et al.): falls if samples miss a part.
        expected_coverage: what as many further real subjects would reach.
    """

    precision: float
    density: float
    coverage: float
    expected_coverage: float


def expected_coverage(real: int, generated: int, k: int = 5) -> float:
    """Coverage if samples follow the real distribution: `1 - prod_{i=1..k} (N - i) / (N + M - i)` (Naeem et al.)."""
    return 1 - math.prod((real - i) / (real + generated - i) for i in range(1, k + 1))


def precision_and_coverage(across: Tensor, within_real: Tensor, k: int = 5) -> Coverage:
    """Precision, density and coverage of samples in a space of distances, such as `pairwise_distances` of fields.

    Arguments:
        across: distances of real subjects to samples, `[N, M]`.
        within_real: distances among real subjects, `[N, N]`.
        k: neighbours that set the radius of a real subject's ball, itself not counted.

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if there are not more than k real subjects, or no samples.
    """
    n, m = across.shape
    if within_real.shape != (n, n):
        found = f"{tuple(across.shape)} and {tuple(within_real.shape)}"
        raise ValueError(f"expected distances [N, M] and [N, N], got {found}")
    if not 1 <= k < n or m < 1:
        raise UserError(f"coverage with k = {k} needs {k + 1} or more real and 1 or more generated, got {n} and {m}")
    others = within_real.clone().fill_diagonal_(math.inf)
    radius = others.kthvalue(k, dim=1, keepdim=True).values
    inside = across <= radius
    return Coverage(
        precision=float(inside.any(dim=0).double().mean()),
        density=float(inside.double().sum(dim=0).mean()) / k,
        coverage=float(inside.any(dim=1).double().mean()),
        expected_coverage=expected_coverage(n, m, k),
    )
