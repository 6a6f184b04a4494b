"""One scale of intensities for everyone's images."""

import torch
from torch import Tensor

from cortexgen.errors import UserError

AIR = 0.05  # of an image's robust maximum: what a background may be
BELOW = 0.02  # of all voxels: what may lie far below zero, as interpolation leaves some
FACES = 0.5  # of the volume's outermost voxels: one value in so many of them is a background


def normalize(image: Tensor, source: object = "image") -> Tensor:
    """Divide by the 99.5th percentile of the voxels above zero and clip to [0, 1].

    A constant background below zero, as z-scoring a whole volume leaves it, is taken as zero first.

    Arguments:
        image: any shape.
        source: what to name in an error.

    Raises:
        UserError: if no voxel is above zero, a constant background is far above it, or much of the image is below.
    """
    level = background(image)
    if level < 0:
        image = image - level
    brain = image[image > 0]
    if brain.numel() == 0:
        raise UserError(f"{source}: no voxel is above zero")
    high = _robust_maximum(brain)
    if level > AIR * float(high):
        raise _offset(level, source)
    if float((image < -2 * AIR * high).float().mean()) > BELOW:
        found = f"intensities from {float(image.min()):.3g} to {float(image.max()):.3g} with the background between"
        raise UserError(f"{source}: {found}, expected none below the background's zero; was it z-scored in a mask?")
    return (image / high).clamp(0, 1)


def check_background(image: Tensor, source: object = "image") -> None:
    """See that a constant background isn't far above zero.

    Raises:
        UserError: if it is.
    """
    level = background(image)
    if level > 0 and level > AIR * float(_robust_maximum(image[image > 0])):
        raise _offset(level, source)


def background(image: Tensor) -> float:
    """The value of most of a volume's outermost voxels, `[..., D, H, W]`; 0 if they have none in common."""
    if image.ndim < 3:
        return 0.0
    faces = torch.cat([image.select(axis, place).flatten() for axis in (-3, -2, -1) for place in (0, -1)]).float()
    level = float(faces.median())
    near = 1e-3 * float(image.max() - image.min())
    return level if float(((faces - level).abs() <= near).float().mean()) > FACES and abs(level) > near else 0.0


def _offset(level: float, source: object) -> UserError:
    return UserError(f"{source}: its background is {level:.4g}, expected 0 (air); subtract it from the image")


def _robust_maximum(brain: Tensor) -> Tensor:
    stride = -(-brain.numel() // 8_000_000)  # torch.quantile takes 16 million values at most
    return torch.quantile(brain[::stride], 0.995)
