"""From a velocity in template space to what users want in the images' own spaces."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.io import Grid
from cortexgen.spatial import (
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


@dataclass(frozen=True)
class Space:
    """An image, its labels, and where both lie.

    Attributes:
        name: as in the names of transforms, "T1w" or the template's.
        image: `[1, D, H, W]` in [0, 1], on `image_grid`.
        labels: `[1, D, H, W]`, int64, likewise, or None.
        image_grid: of both.
        grid: results in this space are written on it.
        affine: `[4, 4]` float64, from template space to this image's, in millimetres (RAS).
        classes: names of the labels by index.
        numbers: of the labels in files; 0, 1, 2, ... unless given.
    """

    name: str
    image: Tensor
    labels: Tensor | None
    image_grid: Grid
    grid: Grid
    affine: Tensor
    classes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Propagated:
    """A registration in the spaces of its images.

    Attributes:
        moving, fixed: the images and where they lie.
        velocity: `[1, 3, d, h, w]`, after unfolding.
        displacement: warps the moving image onto the fixed one, `[1, 3, D, H, W]` in voxels of the fixed grid.
        inverse: the other way, in voxels of the moving grid.
        log_jacobian: of the nonlinear growth, `[1, 1, D, H, W]` on the moving grid.
        warped: the moving image on the fixed grid, `[1, D, H, W]`.
        labels: the moving labels there, or None.
        volumes: of each class in the fixed image by summed probability, in millilitres, or None.
        folded: voxel cubes with a Jacobian determinant that is not positive, both ways, and on the velocity's grid.
        unfolding: rounds of smoothing that this took; -1 if it still folds.
    """

    moving: Space
    fixed: Space
    velocity: Tensor
    displacement: Tensor
    inverse: Tensor
    log_jacobian: Tensor
    warped: Tensor
    labels: Tensor | None
    volumes: Tensor | None
    folded: int
    unfolding: int


class _Fields(NamedTuple):
    """A velocity's flows on its own grid, and the displacements on the images' grids that they make."""

    flow: Tensor
    back: Tensor
    forward: Tensor
    backward: Tensor


class Propagation:
    """The maps between a moving and a fixed image that velocities in template space stand for.

    Arguments:
        moving, fixed: the images.
        velocity_grid: where velocities live, in template space.
        steps: squarings.
    """

    def __init__(self, moving: Space, fixed: Space, velocity_grid: Grid, steps: int) -> None:
        self.moving, self.fixed, self.velocity_grid, self.steps = moving, fixed, velocity_grid, steps

    def flow(self, velocity: Tensor, back: bool = False) -> Tensor:
        """exp(v) - id, or the inverse's displacement, on the velocity's grid."""
        return integrate(velocity, self.steps, inverse=back)

    def _between(self, flow: Tensor, start: Space, end: Space, after: Tensor | None = None) -> Tensor:
        origin, grid = self.velocity_grid.torch_affine, start.grid
        after = end.affine if after is None else after
        return resample_field(flow, origin, grid.shape, grid.torch_affine, torch.linalg.inv(start.affine), after)

    def forward(self, velocity: Tensor) -> Tensor:
        """The displacement that warps the moving image onto the fixed grid."""
        return self._between(self.flow(velocity), self.fixed, self.moving)

    def backward(self, velocity: Tensor) -> Tensor:
        """The displacement that warps the fixed image onto the moving grid."""
        return self._between(self.flow(velocity, back=True), self.moving, self.fixed)

    def still(self) -> Tensor:
        """The displacement of the affines alone, on the fixed grid."""
        return self._between(torch.zeros(1, 3, *self.velocity_grid.shape), self.fixed, self.moving)

    def growth(self, velocity: Tensor) -> Tensor:
        """log |J| of exp(-v), without the affines, on the moving grid."""
        return self._growth(self.flow(velocity, back=True))

    def _growth(self, flow: Tensor) -> Tensor:
        return log_jacobian(self._between(flow, self.moving, self.moving, self.moving.affine))

    def positions(self, displacement: Tensor) -> Tensor:
        """Where the fixed grid's voxels come from, in voxels of the moving image."""
        return positions_in(self.moving.image_grid.torch_affine, displacement, self.fixed.grid.torch_affine)

    def warp(self, displacement: Tensor) -> Tensor:
        """The moving image on the fixed grid, `[1, D, H, W]`."""
        return sample(self.moving.image[None], self.positions(displacement), padding="zeros")[0]

    def _fields(self, velocity: Tensor) -> _Fields:
        flows = self.flow(velocity), self.flow(velocity, back=True)
        spaces = (self.fixed, self.moving), (self.moving, self.fixed)
        forward, backward = (self._between(flow, *pair) for flow, pair in zip(flows, spaces, strict=True))
        return _Fields(*flows, forward, backward)

    def _trouble(self, found: _Fields) -> Tensor:
        """Places where the fields fold, in voxels of the velocity's grid, `[n, 3]`."""
        voxels, eye = torch.linalg.inv(self.velocity_grid.torch_affine), torch.eye(4, dtype=torch.float64)
        places = []
        for flow, field, start in ((found.flow, found.forward, self.fixed), (found.back, found.backward, self.moving)):
            to_voxels = voxels @ torch.linalg.inv(start.affine) @ start.grid.torch_affine
            places += [fold_places(flow, flow, eye), fold_places(field, flow, to_voxels)]
        return torch.cat(places)

    @torch.no_grad()
    def run(self, velocity: Tensor, nearest: bool = False) -> Propagated:
        """Unfold a velocity `[1, 3, d, h, w]` where it folds, and carry image, labels and volumes over.

        Arguments:
            nearest: take labels from the nearest voxel instead of the largest interpolated indicator.
        """
        tried: list[_Fields] = []

        def trouble(candidate: Tensor) -> Tensor:
            tried[:] = [self._fields(candidate)]
            return self._trouble(tried[0])

        velocity, rounds = unfold(velocity, trouble)
        found = tried[0] if rounds >= 0 else self._fields(velocity)  # which was smoothed once more
        forward, backward = found.forward, found.backward
        labels = volumes = None
        if self.moving.labels is not None:
            positions = self.positions(forward)
            classes = len(self.moving.classes) or int(self.moving.labels.max()) + 1
            labels, sums = warp_labels(self.moving.labels[None], positions, classes)
            volumes = sums[0] * self.fixed.grid.voxel_volume / 1000
            if nearest:
                labels = sample(self.moving.labels[None].float(), positions, "nearest", "zeros").long()
            labels = labels[0]
        folds = 0 if rounds >= 0 else int(folded(forward)) + int(folded(backward))
        growth, warped = self._growth(found.back), self.warp(forward)
        spaces = (self.moving, self.fixed)
        return Propagated(*spaces, velocity, forward, backward, growth, warped, labels, volumes, folds, rounds)
