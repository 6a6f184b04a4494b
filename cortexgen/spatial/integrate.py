"""The flow of a stationary velocity."""

from torch import Tensor

from cortexgen.spatial.compose import compose
from cortexgen.spatial.invert import invert


def integrate(velocity: Tensor, steps: int = 7, inverse: bool = False) -> Tensor:
    """`exp(v) - id` by scaling and squaring (Arsigny et al., MICCAI 2006): `exp(v) = exp(v / 2^n)^(2^n)`.

    Positions outside the grid take the border's value; zeros there would fold the rim.

    Arguments:
        velocity: v, `[B, 3, D, H, W]` in voxels.
        steps: number of squarings; 0 reads `velocity` as a displacement and returns it.
        inverse: give the inverse map's: `exp(-v) - id`, or with 0 steps the displacement's, solved for (`invert`).

    Returns:
        The displacement, `[B, 3, D, H, W]` in voxels, float32.
    """
    displacement = velocity.float()
    if steps == 0:
        return invert(displacement) if inverse else displacement
    displacement = (-displacement if inverse else displacement) / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement
