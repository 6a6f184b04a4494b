"""From a velocity in template space to what users want in the images' own spaces."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.contracts import Registered, Space, Written
from cortexgen.io import Grid, in_steps
from cortexgen.spatial import (
    affine_displacement,
    fold_places,
    folded,
    integrate,
    log_jacobian,
    positions_in,
    resample_field,
    sample,
    unfold,
    warp_labels,
)

EYE = torch.eye(4, dtype=torch.float64)


class Flows(NamedTuple):
    """exp(v) - id and exp(-v) - id, `[1, 3, d, h, w]` in voxels of the velocity's grid."""

    forward: Tensor
    backward: Tensor


class Unfolded(NamedTuple):
    """A velocity that folds on no grid, its flows, the displacements that they make on the images' grids, and the
    rounds of smoothing that it took; -1 if it still folds. The way back is None where it wasn't asked for. `coarse` has
    the ways on coarser grids, where those are written."""

    velocity: Tensor
    flows: Flows
    forward: Tensor
    backward: Tensor | None
    rounds: int
    coarse: tuple[Written, ...] = ()


class Propagation:
    """The maps between a moving and a fixed image that velocities in template space stand for.

    Arguments:
        moving, fixed: the images.
        velocity_grid: where velocities live, in template space.
        steps: squarings.
        spacing: of the grids that fields are written on in millimetres, if they are to be coarser than the images'.
    """

    def __init__(self, moving: Space, fixed: Space, velocity_grid: Grid, steps: int, spacing: float = 0.0) -> None:
        self.moving, self.fixed, self.velocity_grid, self.steps = moving, fixed, velocity_grid, steps
        self.spacing = spacing

    def flow(self, velocity: Tensor, back: bool = False) -> Tensor:
        """exp(v) - id, or the inverse's displacement, on the velocity's grid."""
        return integrate(velocity, self.steps, inverse=back)

    def _between(
        self, flow: Tensor, start: Space, end: Space, grid: Grid | None = None, after: Tensor | None = None
    ) -> Tensor:
        origin, grid = self.velocity_grid.torch_affine, grid or start.grid
        around = torch.linalg.inv(start.affine), end.affine if after is None else after
        still = all(torch.equal(affine, EYE) for affine in around)
        return resample_field(flow, origin, grid.shape, grid.torch_affine, *(() if still else around))

    def _grids(self, grid: Grid) -> list[Grid]:
        """Where a field must not fold: on `grid`, and where it is written if that is coarser."""
        coarse = [grid.at_spacing(self.spacing)] if self.spacing else []
        return [grid, *(c if math.prod(c.shape) < math.prod(grid.shape) else grid for c in coarse)]

    def forward(self, velocity: Tensor) -> Tensor:
        """The displacement that warps the moving image onto the fixed grid."""
        return self._between(self.flow(velocity), self.fixed, self.moving)

    def backward(self, velocity: Tensor) -> Tensor:
        """The displacement that warps the fixed image onto the moving grid."""
        return self._between(self.flow(velocity, back=True), self.moving, self.fixed)

    def still(self) -> Tensor:
        """The displacement of the affines alone, on the fixed grid."""
        grid = self.fixed.grid
        world = self.moving.affine @ torch.linalg.inv(self.fixed.affine) @ grid.torch_affine
        return affine_displacement(torch.linalg.inv(grid.torch_affine) @ world, grid.shape)

    def log_jacobian(self, back: Tensor, backward: Tensor | None = None) -> Tensor:
        """log |J| of exp(-v), without the affines, on the moving grid.

        Arguments:
            back: `flow(velocity, back=True)`.
            backward: of the velocity, where it is known; without affines the two are one.
        """
        if backward is None or not torch.equal(self.moving.affine, EYE) or not torch.equal(self.fixed.affine, EYE):
            backward = self._between(back, self.moving, self.moving, after=self.moving.affine)
        return log_jacobian(backward)

    def positions(self, displacement: Tensor) -> Tensor:
        """Where the fixed grid's voxels come from, in voxels of the moving image."""
        return positions_in(self.moving.image_grid.torch_affine, displacement, self.fixed.grid.torch_affine)

    def warp(self, displacement: Tensor) -> Tensor:
        """The moving image on the fixed grid, `[1, D, H, W]`."""
        return sample(self.moving.image[None], self.positions(displacement), padding="zeros")[0]

    def flows(self, velocity: Tensor) -> Flows:
        """Both ways on the velocity's grid."""
        return Flows(self.flow(velocity), self.flow(velocity, back=True))

    def unfolded(self, velocity: Tensor, rounds: int = 40, both: bool = True, flows: Flows | None = None) -> Unfolded:
        """Smooth a velocity `[1, 3, d, h, w]` where it folds, on its own grid or on those that are written.

        Arguments:
            rounds: at most.
            both: look at the way back on the moving grid, too.
            flows: of the velocity, where they are known.
        """
        voxels, eye = torch.linalg.inv(self.velocity_grid.torch_affine), EYE
        ways = ((self.fixed, self.moving), (self.moving, self.fixed))
        last, found, fields = velocity, flows, list[list[Written]]()

        def trouble(candidate: Tensor) -> Tensor:
            nonlocal last, found, fields
            if found is None or candidate is not last:
                last, found = candidate, self.flows(candidate)
            places, fields = [], []
            for flow, (start, end), written in zip(found, ways, (True, both), strict=True):
                places.append(fold_places(flow, flow, eye))
                if written:
                    fields.append([Written(self._between(flow, start, end, on), on) for on in self._grids(start.grid)])
                    for field, grid in fields[-1]:
                        to_voxels = voxels @ torch.linalg.inv(start.affine) @ grid.torch_affine
                        places.append(fold_places(in_steps(field, grid), flow, to_voxels))  # as it is written
            return torch.cat(places)

        velocity, taken = unfold(velocity, trouble, rounds)
        if taken < 0:
            trouble(velocity)  # which was smoothed once more
        assert found is not None
        forward, backward = fields[0][0].displacement, fields[1][0].displacement if both else None
        coarse = tuple(way[1] for way in fields) if self.spacing else ()
        return Unfolded(velocity, found, forward, backward, taken, coarse)

    @torch.no_grad()
    def run(self, velocity: Tensor, nearest: bool = False) -> Registered:
        """Unfold a velocity `[1, 3, d, h, w]` where it folds, and carry image, labels and volumes over.

        Arguments:
            nearest: take labels from the nearest voxel instead of the largest interpolated indicator.
        """
        found = self.unfolded(velocity)
        forward, backward = found.forward, found.backward
        assert backward is not None
        labels = volumes = None
        if self.moving.labels is not None:
            positions = self.positions(forward)
            classes = len(self.moving.classes) or int(self.moving.labels.max()) + 1
            labels, sums = warp_labels(self.moving.labels[None], positions, classes)
            volumes = sums[0] * self.fixed.grid.voxel_volume / 1000
            if nearest:
                labels = sample(self.moving.labels[None].float(), positions, "nearest", "zeros").long()
            labels = labels[0]
        return Registered(
            self.moving,
            self.fixed,
            found.velocity,
            self.velocity_grid,
            self.steps,
            displacement=forward,
            inverse=backward,
            log_jacobian=self.log_jacobian(found.flows.backward, backward),
            warped=self.warp(forward),
            labels=labels,
            volumes=volumes,
            folded=0
            if found.rounds >= 0
            else sum(int(folded(f)) for f in (forward, backward, *(c.displacement for c in found.coarse))),
            unfolding=found.rounds,
            coarse=found.coarse,
        )
