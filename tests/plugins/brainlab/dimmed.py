"""A generator: the template, more or less bright."""

import torch

from cortexgen.atlas.template import load_template
from cortexgen.contracts import Brain, Generator


class Dimmed(Generator):
    """Draws the template times a factor from 0.5 to 1.

    Arguments:
        seed: of the cohort.
        resolution: voxel size in millimetres.
    """

    def __init__(self, seed: int = 0, resolution: float = 2.0) -> None:
        self.seed, template = seed, load_template()
        self.template = template.to(template.grid.at_spacing(resolution))

    def draw(self, index: int) -> Brain:
        random = torch.Generator().manual_seed(1000 * self.seed + index)
        factor = 0.5 + 0.5 * float(torch.rand(1, generator=random))
        return Brain(index, factor * self.template.image, self.template.grid)
