"""One scale of intensities for everyone's images."""

import torch
from torch import Tensor

from cortexgen.errors import UserError

CONSTANT = 0.3  # share of voxels of exactly one value, from which that is a background without noise
AIR = 0.05  # of an image's robust maximum: what a background may differ from zero
BELOW = 0.02  # of all voxels: what may lie further below zero than twice that, as interpolation leaves some


def normalize(image: Tensor, source: object = "image") -> Tensor:
    """Divide by the 99.5th percentile of the voxels above zero and clip to [0, 1].

    A constant background far below zero, as z-scoring of a whole volume leaves it, is taken as zero.

    Arguments:
        image: any shape; a background is looked for in `[1, D, H, W]`.
        source: what to name in an error.

    Raises:
        UserError: if no voxel is above zero, a constant background is far above it, or a part of the brain far below.
    """
    level = constant_background(image) if image.ndim == 4 else None
    if level and level < -AIR * float(image.max()):
        image, level = image - level, 0.0
    brain = image[image > 0]
    if brain.numel() == 0:
        raise UserError(f"{source}: no voxel is above zero")
    stride = -(-brain.numel() // 8_000_000)  # torch.quantile takes 16 million values at most
    high = torch.quantile(brain[::stride], 0.995)
    if level and level > AIR * float(high):
        raise UserError(f"{source}: its background is {level:.4g}, expected 0 (air); subtract it from the image")
    if float((image < -2 * AIR * high).float().mean()) > BELOW:
        found = f"intensities from {float(image.min()):.3g} to {float(image.max()):.3g} with the background between"
        raise UserError(f"{source}: {found}, expected a background at the bottom; was it z-scored in a mask?")
    return (image / high).clamp(0, 1)


def constant_background(image: Tensor) -> float | None:
    """The value around a head or brain `[1, D, H, W]`, if it is exactly one as after masking; else None."""
    planes = [side for axis in (1, 2, 3) for side in (image.select(axis, 0), image.select(axis, -1))]
    value = torch.cat([plane.flatten() for plane in planes]).median()
    return float(value) if float((image == value).float().mean()) >= CONSTANT else None
