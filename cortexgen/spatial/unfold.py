"""Velocities whose flow does not fold."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.spatial.resample import antialias


def unfold(velocity: Tensor, trouble: Callable[[Tensor], Tensor | None], rounds: int = 40) -> tuple[Tensor, int]:
    """Smooth a velocity where its flow folds, and nowhere else, until it folds no more.

    Each round averages the velocity over [1 2 1] / 4 along each axis within a few voxels of the folds, a voxel further
    out with every fourth round.

    Arguments:
        velocity: `[1, 3, d, h, w]` in voxels.
        trouble: gives the places where a velocity's flow folds, in voxels of its grid, `[n, 3]`, or None.
        rounds: how many at most.

    Returns:
        The velocity and the number of rounds that it took; -1 if it still folds.
    """
    for k in range(rounds + 1):
        places = trouble(velocity)
        if places is None or len(places) == 0:
            return velocity, k
        size = torch.tensor(velocity.shape[2:], device=velocity.device)
        d, h, w = places.round().long().clamp(min=0).minimum(size - 1).unbind(dim=1)
        near = torch.zeros(1, 1, *velocity.shape[2:], device=velocity.device)
        near[0, 0, d, h, w] = 1
        reach = 2 + k // 4
        near = antialias(F.max_pool3d(near, 2 * reach + 1, stride=1, padding=reach), (2, 2, 2))
        velocity = velocity + near * (antialias(velocity, (2, 2, 2)) - velocity)
    return velocity, -1
