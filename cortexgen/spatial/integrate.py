"""The flow of a stationary velocity."""

from torch import Tensor

from cortexgen.spatial.compose import compose
from cortexgen.spatial.invert import invert
from cortexgen.spatial.warp import warp


def integrate(velocity: Tensor, steps: int = 7, inverse: bool = False) -> Tensor:
    """`exp(v) - id` by scaling and squaring (Arsigny et al., MICCAI 2006): `exp(v) = exp(v / 2^k)^(2^k)`.

    exp(v / 2^k) is a step of the midpoint rule. Its error falls by four where k grows by one, that of the usual v / 2^n
    by two: with k = n / 2, rounded up, the flow of 7 is seven times as exact, in five samplings instead of seven.

    Positions outside the grid take the border's value; zeros there would fold the rim.

    Arguments:
        velocity: v, `[B, 3, D, H, W]` in voxels.
        steps: n, so many squarings' exactness at the least; 0 reads `velocity` as a displacement and returns it.
        inverse: give the inverse map's: `exp(-v) - id`, or with 0 steps the displacement's, solved for (`invert`).

    Returns:
        The displacement, `[B, 3, D, H, W]` in voxels, float32.
    """
    displacement = velocity.float()
    if steps == 0:
        return invert(displacement) if inverse else displacement
    squarings = (steps + 1) // 2
    displacement = (-displacement if inverse else displacement) / 2**squarings
    displacement = warp(displacement, displacement / 2)
    for _ in range(squarings):
        displacement = compose(displacement, displacement)
    return displacement
