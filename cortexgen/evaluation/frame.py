"""The field of view that all sets of a comparison are looked at in."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.evaluation.store import Store
from cortexgen.metrics.box import bounding_box

TISSUE = 0.02  # of the real brains that have tissue where the brain's box reaches


@dataclass(frozen=True)
class Frame:
    """The field of view of the real brains, which all sets are looked at in.

    Attributes:
        mask: where they have tissue, `[1, D, H, W]` bool.
        low, high: first and last voxel (D, H, W) of its box.
    """

    mask: Tensor
    low: list[int]
    high: list[int]

    @property
    def key(self) -> str:
        """Says which box."""
        return f"{self.low} {self.high}"


def frame(real: Store) -> Frame:
    """Where at least 2 % of the real brains have tissue, and its box."""
    count = sum((image > BRAIN_FOREGROUND for image in real.images()), torch.zeros(1, *real.grid.shape))
    mask = count >= max(1.0, TISSUE * len(real))
    box = bounding_box(mask)
    if box is None:
        raise UserError(f"{real.brains.path}: no voxel of any image is brighter than air")
    return Frame(mask, *box)
