"""The bounding box of a mask."""

import torch
from torch import Tensor


def bounding_box(mask: Tensor) -> tuple[list[int], list[int]] | None:
    """First and last voxel (D, H, W) of a mask, `[1, D, H, W]` or `[D, H, W]`; None if it is empty."""
    places = torch.nonzero(mask.reshape(mask.shape[-3:]))
    return (places.amin(dim=0).tolist(), places.amax(dim=0).tolist()) if len(places) else None
