"""No deformation: what a registration has to be better than."""

from typing import Any

from torch import Tensor

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.template import Template
from cortexgen.contracts import Frame, Registration, Solved


class AffineOnly(Registration):
    """What the affine to template space gives by itself; needs no weights.

    Arguments:
        template: around whose brain it works.
        spacing: of its grid in millimetres.
    """

    def __init__(self, template: Template, spacing: float = 2.0) -> None:
        self.grid = brain_box(template.to(template.grid.at_spacing(spacing)))
        self.spacing = spacing

    @property
    def frame(self) -> Frame:
        """The box of the template's brain; its fields are displacements."""
        return Frame(self.grid, self.grid)

    def describe(self) -> dict[str, Any]:
        return {"Weights": "affine alone", "Template": None, "Parameters": {"spacing": self.spacing}}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        return Solved(fixed.new_zeros(1, 3, *fixed.shape[2:]))
