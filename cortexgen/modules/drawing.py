"""From a drawn velocity to a labelled brain that passed its checks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cortexgen.data.covariates import HEAD_SIZE
from cortexgen.data.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.metrics import regional_volumes, volume_weights
from cortexgen.spatial import fold_places, folded, identity, integrate, resample_field, unfold, warp, warp_labels

if TYPE_CHECKING:
    from cortexgen.modules.generator import GeneratorModule

VOLUME_LIMIT = 4.0  # standard deviations of the training cohort's log-volumes
LEAST_VOLUME = 0.1  # ml, of a region that is judged; a slab holds slivers of others
FEW, ROUNDS = 50, 8  # folded voxels that are smoothed away, as in registrations; rounds of it


@dataclass(frozen=True)
class Sample:
    """A brain that was drawn.

    Attributes:
        velocity: `[3, d, h, w]` in voxels of its grid.
        displacement: warps the template onto `grid`, `[3, D, H, W]` in voxels of it.
        image: `[1, D, H, W]` in [0, 1].
        labels: `[1, D, H, W]`, or None.
        grid: of the image, in the space of the synthetic subject.
        growth: of the head against template space, in each direction; 1 unless the size was drawn.
        volumes: of each class in millilitres, or None.
        conditions: the covariates that it was drawn for.
        unfolding: rounds of local smoothing that it took until nothing folded.
        rejected: why the draws before it were discarded.
    """

    velocity: Tensor
    displacement: Tensor
    image: Tensor
    labels: Tensor | None
    grid: Grid
    growth: float
    volumes: Tensor | None
    conditions: dict[str, Any]
    unfolding: int
    rejected: list[str]


class Sampler:
    """Draws, checks and warps: what a generator's module makes of the template.

    Raises:
        UserError: if the template is not the one trained on.
    """

    def __init__(self, module: "GeneratorModule") -> None:
        self.module, self.contract = module, module.contract
        self.steps = self.contract["integration_steps"]
        self.velocity_grid = Grid.from_dict(self.contract["grid"])
        image_grid = Grid.from_dict(self.contract["image_grid"])
        self.grid = image_grid.at_spacing(module.spacing) if module.spacing else image_grid
        original = module.template or (
            module.data.template if module.data_is_set_up else load_template(*self.contract["template_source"])
        )
        expected = self.contract["template"]["hash"]
        if original.hash != expected:
            raise UserError(f"the weights' template has hash {expected:.12}, {original.name} has {original.hash:.12}")
        self.weights = None
        to_velocity = (original.grid, self.velocity_grid)
        if original.labels is not None:
            self.weights = volume_weights(original.labels, *to_velocity, len(original.classes))
        if module.native_size:
            self.mask_weights = volume_weights(original.mask.long(), *to_velocity, 2)
        if module.parcellation is not None:
            labels, classes = module.parcellation
            original = replace(original, labels=labels, classes=classes)
        self.template = original.to(self.grid)

    def _trouble(self, velocity: Tensor, growth: float) -> tuple[Tensor, Tensor]:
        """Where the fields that are written fold, in voxels of the velocity's grid, `[n, 3]`; and the displacement."""
        voxels, eye = torch.linalg.inv(self.velocity_grid.torch_affine), torch.eye(4, dtype=torch.float64)
        places, fields = [], []
        for inverse in (False, True):
            flow = integrate(velocity, self.steps, inverse)
            places.append(fold_places(flow, flow, eye))
            if not inverse or self.module.save_fields:
                to_voxels = voxels @ (eye if inverse else self._size(1 / growth)) @ self.grid.torch_affine
                fields.append(self._on_image(flow, growth, inverse))
                places.append(fold_places(fields[-1][None], flow, to_voxels))
        return torch.cat(places), fields[0]

    def _unfolded(self, velocity: Tensor, growth: float) -> tuple[Tensor, Tensor | None, int, list[str]]:
        """A velocity smoothed where it folds, its displacement, the rounds that this took, and why it can't be."""
        folds = sum(int(folded(integrate(velocity[None], self.steps, inverse))) for inverse in (False, True))
        if folds > FEW:
            return velocity, None, 0, [f"{folds} folded voxels"]
        fields: list[Tensor] = []

        def trouble(velocity: Tensor) -> Tensor:
            places, field = self._trouble(velocity, growth)
            fields[:] = [field]
            return places

        smooth, rounds = unfold(velocity[None], trouble, ROUNDS)
        reasons = [f"folds after {ROUNDS} rounds of smoothing"] if rounds < 0 else []
        return smooth[0], fields[0], rounds, reasons

    def failed_checks(self, velocity: Tensor) -> list[str]:
        """Regional volumes of a velocity `[3, d, h, w]` outside the training cohort's mean ± 4 SD."""
        if self.weights is None or "log_volume_mean" not in self.contract:
            return []
        volumes = regional_volumes(velocity[None], self.weights, self.velocity_grid.voxel_volume, self.steps)[0]
        z = (volumes.log() - self.contract["log_volume_mean"]) / self.contract["log_volume_std"].clamp(min=1e-6)
        names = self.contract["template"]["classes"]
        judged = self.contract["log_volume_mean"] > log(LEAST_VOLUME)
        beyond = torch.nonzero(judged & ~(z.abs() <= VOLUME_LIMIT)).flatten().tolist()
        return [f"{names[k]} at {float(z[k]):+.1f} SD" for k in beyond]

    def growth(self, velocity: Tensor, conditions: Mapping[str, Any]) -> float:
        """How much larger than in template space the head is, so that its brain has the volume asked for."""
        if not self.module.native_size:
            return 1.0
        voxel = self.velocity_grid.voxel_volume
        volume = regional_volumes(velocity[None], self.mask_weights, voxel, self.steps)[0, 1]
        return float((conditions[HEAD_SIZE] / volume) ** (1 / 3))

    def draw(self, index: int) -> Sample:
        """Sample `index` of the cohort.

        Raises:
            UserError: if it failed its checks too often.
        """
        module, grid = self.module, self.grid
        conditions = module.with_head_size(index) if module.native_size else dict(module.conditions or {})
        rejected: list[str] = []
        while True:
            drawn = module.sample(index, len(rejected), conditions)
            growth = self.growth(drawn, conditions)
            velocity, displacement, rounds, reasons = self._unfolded(drawn, growth)
            reasons = reasons or self.failed_checks(velocity)
            if not reasons:
                break
            rejected.append("; ".join(reasons))
            if len(rejected) > module.max_redraws:
                raise UserError(
                    f"sample {index + 1}: {len(rejected)} draws failed the checks, the last one with {rejected[-1]}; "
                    "train longer, or raise max_redraws"
                )
        assert displacement is not None
        template, positions = self.template, identity(grid.shape) + displacement[None]
        image = warp(template.image[None], displacement[None])[0]
        labels = volumes = None
        if template.labels is not None:
            labels, sums = warp_labels(template.labels[None], positions, len(template.classes))
            labels, volumes = labels[0], sums[0] * grid.voxel_volume / 1000
        return Sample(velocity, displacement, image, labels, grid, growth, volumes, conditions, rounds, rejected)

    def field(self, velocity: Tensor, growth: float, inverse: bool = False) -> Tensor:
        """The displacement that warps the template onto the sample, or back, `[3, D, H, W]` on the images' grid."""
        flow = integrate(velocity[None], self.steps, inverse)
        return self._on_image(flow, growth, inverse)

    def _on_image(self, flow: Tensor, growth: float, inverse: bool) -> Tensor:
        origin, grid = self.velocity_grid.torch_affine, self.grid
        if growth == 1:
            return resample_field(flow, origin, grid.shape, grid.torch_affine)[0]
        eye, size = self._size(1), self._size(growth if inverse else 1 / growth)
        around = (eye, size) if inverse else (size, eye)
        return resample_field(flow, origin, grid.shape, grid.torch_affine, *around)[0]

    @staticmethod
    def _size(factor: float) -> Tensor:
        return torch.diag(torch.tensor([factor] * 3 + [1.0], dtype=torch.float64))
