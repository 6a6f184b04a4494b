"""A registration: centre of mass on centre of mass."""

import torch
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.contracts import Frame, Registration, Solved


def centre(image: Tensor) -> Tensor:
    """Of mass of `[1, 1, D, H, W]`, in voxels."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, image.shape[2:]), indexing="ij"))
    return (places * image[0]).sum(dim=(1, 2, 3)) / image.sum()


class Centres(Registration):
    """Shifts the moving image.

    Arguments:
        template: on whose grid, at 4 mm.
    """

    def __init__(self, template: Template) -> None:
        self.grid = template.grid.at_spacing(4.0)

    @property
    def frame(self) -> Frame:
        return Frame(self.grid, self.grid)

    def describe(self) -> dict:
        return {"Weights": "centres of mass", "Template": None, "Parameters": {}}

    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        shift = centre(moving) - centre(fixed)
        return Solved(shift.view(1, 3, 1, 1, 1).expand(1, 3, *self.grid.shape).clone())
