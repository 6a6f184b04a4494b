"""Volumes as other libraries take them."""

import numpy as np
import torch
from torch import Tensor

MARGIN = 4  # voxels around a mask that a filter looks at


def box_around(mask: Tensor) -> tuple[slice, ...]:
    """The part of a volume `[1, D, H, W]` that a mask and a margin around it take."""
    spans = [torch.nonzero(mask.movedim(axis, 0).flatten(1).any(dim=1)).flatten() for axis in (1, 2, 3)]
    return slice(None), *(slice(max(0, int(s[0]) - MARGIN), int(s[-1]) + MARGIN + 1) for s in spans)


def to_xyz(image: Tensor) -> np.ndarray:
    """`[1, D, H, W]` as array (X, Y, Z), from left to right, posterior to anterior, inferior to superior."""
    return np.ascontiguousarray(image[0].permute(2, 1, 0).numpy())


def from_xyz(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)))[None]
