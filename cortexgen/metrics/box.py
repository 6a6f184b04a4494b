"""The bounding box of a mask."""

import torch
from torch import Tensor

from cortexgen.errors import UserError


def bounding_box(mask: Tensor) -> tuple[list[int], list[int]] | None:
    """First and last voxel (D, H, W) of a mask, `[1, D, H, W]` or `[D, H, W]`; None if it is empty."""
    mask = mask.reshape(mask.shape[-3:])
    sides = [torch.nonzero(mask.any(dim=i).any(dim=j)).flatten() for i, j in ((1, 1), (0, 1), (0, 0))]
    return ([int(s[0]) for s in sides], [int(s[-1]) for s in sides]) if len(sides[0]) else None


def cropped(volumes: Tensor, mask: Tensor, what: str) -> Tensor:
    """`[*, D, H, W]` within the bounding box of a mask.

    Raises:
        UserError: if the mask is empty.
    """
    box = bounding_box(mask)
    if box is None:
        raise UserError(f"{what}: the mask is empty")
    d, h, w = (slice(low, high + 1) for low, high in zip(*box, strict=True))
    return volumes[..., d, h, w]
