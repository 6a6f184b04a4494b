"""Velocities whose flow does not fold."""

from collections.abc import Callable

import torch
from torch import Tensor

from cortexgen.spatial.jacobian import folded_cubes
from cortexgen.spatial.resample import antialias
from cortexgen.spatial.warp import sample
from cortexgen.spatial.window import grown


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
        velocity = smoothed_near(velocity, places, 2 + k // 4)
    return velocity, -1


def smoothed_near(velocity: Tensor, places: Tensor, reach: int = 2) -> Tensor:
    """A velocity `[1, 3, d, h, w]`, averaged over [1 2 1] / 4 along each axis within `reach` voxels of `[n, 3]`."""
    size = torch.tensor(velocity.shape[2:], device=velocity.device)
    d, h, w = places.round().long().clamp(min=0).minimum(size - 1).unbind(dim=1)
    near = torch.zeros(1, 1, *velocity.shape[2:], device=velocity.device)
    near[0, 0, d, h, w] = 1
    near = antialias(grown(near, reach), (2, 2, 2))
    return velocity + near * (antialias(velocity, (2, 2, 2)) - velocity)


def fold_places(field: Tensor, flow: Tensor, to_flow: Tensor, least: float = 0.0) -> Tensor:
    """Where a field folds, in voxels of the flow that it was made of: there, and where the flow leads from there.

    Arguments:
        field: `[1, 3, D, H, W]` in voxels of its own grid.
        flow: exp(±v) - id, `[1, 3, d, h, w]` in voxels.
        to_flow: 4x4, voxels of the field's grid to those of the flow's.
        least: determinants that are not above it count as folds.

    Returns:
        `[n, 3]`, n = 0 where nothing folds.
    """
    cubes = torch.nonzero(folded_cubes(field, least)[0]).double() + 0.5
    here = (cubes @ to_flow[:3, :3].T + to_flow[:3, 3]).float()
    if len(here) == 0:
        return here
    return torch.cat([here, here + sample(flow, here.T[None, :, :, None, None])[0, :, :, 0, 0].T])
