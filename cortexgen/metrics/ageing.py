"""How volumes change with age: straight lines and parabolas, whose errors hold where spread grows with age."""

from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.errors import UserError

MIDDLE, DECADE = 50.0, 10.0  # years


class AgeCurve(NamedTuple):
    """A polynomial of age for each of K regions, in decades from 50 years.

    Attributes:
        coefficients: `[p, K]` float64, the constant first.
        covariance: of them, `[K, p, p]`.
    """

    coefficients: Tensor
    covariance: Tensor

    def term(self, power: int) -> tuple[Tensor, Tensor]:
        """A coefficient of each region and its standard error, `[K]` each, in ml a decade to that power."""
        return self.coefficients[power], self.covariance[:, power, power].sqrt()

    def at(self, age: float) -> tuple[Tensor, Tensor]:
        """Mean volume of each region at an age, and its standard error, `[K]` each."""
        row = _powers(torch.tensor([age]), len(self.coefficients))[0]
        return row @ self.coefficients, (self.covariance @ row @ row).sqrt()


def _powers(ages: Tensor, count: int) -> Tensor:
    return ((ages.double() - MIDDLE) / DECADE)[:, None] ** torch.arange(count)


def age_curve(volumes: Tensor, ages: Tensor, degree: int) -> AgeCurve:
    """Least squares of volumes on powers of age, with standard errors for spread that depends on age.

    The covariance is HC3 (MacKinnon & White, 1985): `P diag(r² / (1 - h)²) Pᵀ`, with P the pseudo-inverse of the
    design, r the residuals and h the leverages.

    Arguments:
        volumes: `[N, K]`.
        ages: `[N]`, in years.
        degree: 1 for a line, 2 for a parabola.

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if there are too few brains, or too few different ages.
    """
    if volumes.ndim != 2 or ages.shape != volumes.shape[:1]:
        raise ValueError(f"expected volumes [N, K] and ages [N], got {tuple(volumes.shape)} and {tuple(ages.shape)}")
    if len(ages) < degree + 3 or len(ages.unique()) <= degree:
        found = f"{len(ages)} of {len(ages.unique())} ages"
        raise UserError(f"a curve of degree {degree} needs {degree + 3} or more brains of different ages, got {found}")
    volumes, design = volumes.double(), _powers(ages, degree + 1)
    inverse = torch.linalg.pinv(design)
    coefficients = inverse @ volumes
    leverage = (design * inverse.T).sum(dim=1, keepdim=True)
    scaled = (volumes - design @ coefficients) / (1 - leverage).clamp(min=1e-6)
    return AgeCurve(coefficients, torch.einsum("pn,nk,qn->kpq", inverse, scaled.square(), inverse))
