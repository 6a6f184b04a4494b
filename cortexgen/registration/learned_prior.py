"""Refinement of a network's answer towards the fields of real people."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from cortexgen.contracts import Frame, Registration, Solved
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.registration.refinement import Refinement
from cortexgen.spatial import antialias, from_coarse

Denoiser = Callable[[Tensor], Tensor]


class FieldPrior:
    """What a denoiser D of coarser fields says of velocities `[1, 3, D, H, W]` in voxels, and of steps of theirs.

    S smooths and takes every `factor`-th voxel, P interpolates; what of a velocity is finer than that is not the
    denoiser's affair.

    Arguments:
        denoise: D, of `[1, 3, d, h, w]` in voxels of the coarse grid.
        factor: of the two grids.
    """

    def __init__(self, denoise: Denoiser, factor: int) -> None:
        self.denoise, self.factor = denoise, factor

    def _coarse(self, velocity: Tensor) -> Tensor:
        n = self.factor
        return antialias(velocity, [n] * 3)[:, :, ::n, ::n, ::n] / n

    def residual(self, velocity: Tensor) -> Tensor:
        """`R(v) = P (S v - D(S v))`, what it takes away from a velocity."""
        coarse = self._coarse(velocity)
        return from_coarse(coarse - self.denoise(coarse), velocity.shape[2:], self.factor)

    def direction(self, step: Tensor) -> Tensor:
        """`P (D(S s) - D(0))` of a step of unit size: for a Gaussian prior what of it people differ by."""
        coarse = self._coarse(step / step.square().mean().sqrt().clamp(min=1e-12))
        return from_coarse(self.denoise(coarse) - self.denoise(0 * coarse), step.shape[2:], self.factor)


class PriorRefined(nn.Module, Registration):
    """A network's answer, refined as by `Refinement` with a denoiser of real people's fields.

    The denoiser acts in the steps' direction, and as a force beside the smoothness.

    Arguments:
        network: a module that solves pairs for velocities.
        generator: a module that knows the distribution of fields.
        denoise: what it makes of a noisy velocity `[1, 3, d, h, w]`, in voxels of `grid`.
        grid: every first, second, ... voxel of the network's images.
        refinement: the steps; `share` and `learned` weight the direction and the force.
        options: for the records.

    Raises:
        UserError: if the grids don't belong together.
    """

    def __init__(
        self,
        network: nn.Module,
        generator: nn.Module,
        denoise: Denoiser,
        grid: Grid,
        refinement: Refinement,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.network, self.generator, self.options = network, generator, dict(options)
        images = self._first.frame.grid
        factor = round(grid.spacing[0] / images.spacing[0])
        if factor < 1 or not images.coarse(factor).matches(grid):
            raise UserError(f"prior: the fields' grid is {grid}, none of every few voxels of the network's, {images}")
        self.prior = FieldPrior(denoise, factor)
        self.refinement = replace(
            refinement,
            residual=self.prior.residual if refinement.learned else None,
            direction=self.prior.direction,
        )

    @property
    def _first(self) -> Registration:
        return cast(Registration, self.network)

    @property
    def frame(self) -> Frame:
        """The network's, with velocities on the images' own grid."""
        frame = self._first.frame
        return frame._replace(velocity_grid=frame.grid)

    def describe(self) -> dict[str, Any]:
        first = self._first.describe()
        weights = f"{first['Weights']}, prior {cast(Any, self.generator).weights_hash()}"
        return first | {"Weights": weights, "Parameters": self.options}

    @torch.no_grad()
    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        frame = self._first.frame
        factor = round(frame.velocity_grid.spacing[0] / frame.grid.spacing[0])
        answer = from_coarse(self._first.solve(moving, fixed).field.float(), fixed.shape[2:], factor)
        return Solved(self.refinement(answer, moving, fixed), self.refinement.steps)
