"""A part's field in the whole."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def embed(field: Tensor, low: Sequence[int], shape: Sequence[int], fade: int = 0) -> Tensor:
    """Put a field of a box of voxels into a larger grid of the same voxels.

    Inside the box the field stays as it is. Beyond it is zero; or its border's values go on and fall to zero as half a
    cosine over `fade` voxels, so that nothing is torn at the border.

    Arguments:
        field: `[B, C, d, h, w]`.
        low: where its first voxel lies in the larger grid; parts outside the larger grid are cut off.
        shape: of the larger grid, D, H, W.
        fade: in voxels.

    Returns:
        `[B, C, *shape]`.
    """
    for axis, (first, size) in enumerate(zip(low, shape, strict=True)):
        place = torch.arange(size, device=field.device) - first
        inside = place.clamp(0, field.shape[2 + axis] - 1)
        beyond = ((place - inside).abs() / (fade + 1)).clamp(max=1)
        weight = 0.5 + 0.5 * torch.cos(math.pi * beyond)
        field = (field.index_select(2 + axis, inside).movedim(2 + axis, -1) * weight).movedim(-1, 2 + axis)
    return field
