"""One scale of intensities for everyone's images."""

import torch
from torch import Tensor

from cortexgen.errors import UserError


def normalize(image: Tensor, source: object = "image") -> Tensor:
    """Divide by the 99.5th percentile of the voxels above zero and clip to [0, 1].

    Arguments:
        image: any shape.
        source: what to name in an error.

    Raises:
        UserError: if no voxel is above zero.
    """
    brain = image[image > 0]
    if brain.numel() == 0:
        raise UserError(f"{source}: no voxel is above zero")
    stride = -(-brain.numel() // 8_000_000)  # torch.quantile takes 16 million values at most
    return (image / torch.quantile(brain[::stride], 0.995)).clamp(0, 1)
