"""No deformation: what a registration has to be better than."""

from typing import Any

from torch import Tensor

from cortexgen.contracts import Solved
from cortexgen.registration.boxed import BoxRegistration


class AffineOnly(BoxRegistration):
    """What the affine to template space gives by itself."""

    def describe(self) -> dict[str, Any]:
        return {"Weights": "affine alone", "Template": None, "Parameters": {"spacing": self.spacing}}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        return Solved(fixed.new_zeros(1, 3, *fixed.shape[2:]))
