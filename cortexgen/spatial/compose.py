"""Composition and inversion of displacements."""

import torch
from torch import Tensor

from cortexgen.spatial.warp import warp


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The displacement of `(id + first) ∘ (id + second)`: `p -> p + second(p) + first(p + second(p))`.

    Warping an image by the result equals warping it by `first`, then the outcome by `second`.

    Arguments:
        first, second: `[B, 3, D, H, W]` in voxels of one grid.
    """
    return second + warp(first, second)


def invert(displacement: Tensor, guess: Tensor | None = None, iterations: int = 50, tolerance: float = 1e-3) -> Tensor:
    """The inverse displacement w of u by fixed-point iteration `w <- -u(p + w)` (Chen et al., Med. Phys. 2008).

    It converges where u is a contraction; for a velocity start from `integrate(-v)`.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels.
        guess: where to start; zero unless given.
        iterations: how many at most.
        tolerance: stop when no component moved by more, in voxels.

    Returns:
        w, `[B, 3, D, H, W]` in voxels.
    """
    inverse = torch.zeros_like(displacement) if guess is None else guess
    for _ in range(iterations):
        update = -warp(displacement, inverse)
        moved = (update - inverse).abs().max()
        inverse = update
        if moved < tolerance:
            break
    return inverse
