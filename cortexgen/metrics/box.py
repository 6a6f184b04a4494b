"""The bounding box of a mask."""

import torch
from torch import Tensor

from cortexgen.errors import UserError


def bounding_box(mask: Tensor) -> tuple[list[int], list[int]] | None:
    """First and last voxel (D, H, W) of a mask, `[1, D, H, W]` or `[D, H, W]`; None if it is empty."""
    places = torch.nonzero(mask.reshape(mask.shape[-3:]))
    return (places.amin(dim=0).tolist(), places.amax(dim=0).tolist()) if len(places) else None


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
