"""Composition of displacements."""

from torch import Tensor

from cortexgen.spatial.warp import warp


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The displacement of `(id + first) ∘ (id + second)`: `p -> p + second(p) + first(p + second(p))`.

    Warping an image by the result equals warping it by `first`, then the outcome by `second`.

    Arguments:
        first, second: `[B, 3, D, H, W]` in voxels of one grid.
    """
    return second + warp(first, second)
