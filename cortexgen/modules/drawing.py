"""From a drawn velocity to a labelled brain that passed its checks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cortexgen.data.covariates import HEAD_SIZE
from cortexgen.data.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.metrics import regional_volumes, volume_weights
from cortexgen.spatial import folded, identity, integrate, resample_field, warp, warp_labels

if TYPE_CHECKING:
    from cortexgen.modules.generator import GeneratorModule

VOLUME_LIMIT = 4.0  # standard deviations of the training cohort's log-volumes


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

    def failed_checks(self, velocity: Tensor, displacement: Tensor) -> list[str]:
        """What is wrong with a sample: folds on a written grid, regional volumes outside mean ± 4 SD.

        Arguments:
            velocity: `[3, d, h, w]` in voxels of its grid.
            displacement: `[3, D, H, W]` in voxels of the images' grid.
        """
        reasons = []
        both = integrate(torch.stack([velocity, -velocity]), self.steps)
        folds = int(folded(displacement[None])[0]) + int(folded(both).sum())
        if folds:
            reasons.append(f"{folds} folded voxels")
        if self.weights is not None and "log_volume_mean" in self.contract:
            volumes = regional_volumes(velocity[None], self.weights, self.velocity_grid.voxel_volume, self.steps)[0]
            z = (volumes.log() - self.contract["log_volume_mean"]) / self.contract["log_volume_std"].clamp(min=1e-6)
            names = self.contract["template"]["classes"]
            for k in torch.nonzero(~(z.abs() <= VOLUME_LIMIT)).flatten().tolist():
                reasons.append(f"{names[k]} at {float(z[k]):+.1f} SD")
        return reasons

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
            velocity = module.sample(index, len(rejected), conditions)
            growth = self.growth(velocity, conditions)
            displacement = self.field(velocity, growth)
            reasons = self.failed_checks(velocity, displacement)
            if not reasons:
                break
            rejected.append("; ".join(reasons))
            if len(rejected) > module.max_redraws:
                raise UserError(
                    f"sample {index + 1}: {len(rejected)} draws failed the checks, the last one with {rejected[-1]}; "
                    "train longer, or raise max_redraws"
                )
        template, positions = self.template, identity(grid.shape) + displacement[None]
        image = warp(template.image[None], displacement[None])[0]
        labels = volumes = None
        if template.labels is not None:
            labels, sums = warp_labels(template.labels[None], positions, len(template.classes))
            labels, volumes = labels[0], sums[0] * grid.voxel_volume / 1000
        return Sample(velocity, displacement, image, labels, grid, growth, volumes, conditions, rejected)

    def field(self, velocity: Tensor, growth: float, inverse: bool = False) -> Tensor:
        """The displacement that warps the template onto the sample, or back, `[3, D, H, W]` on the images' grid."""
        u = integrate((-velocity if inverse else velocity)[None], self.steps)
        origin, grid = self.velocity_grid.torch_affine, self.grid
        if growth == 1:
            return resample_field(u, origin, grid.shape, grid.torch_affine)[0]
        eye = torch.eye(4, dtype=torch.float64)
        size = torch.diag(torch.tensor([growth if inverse else 1 / growth] * 3 + [1.0], dtype=torch.float64))
        around = (eye, size) if inverse else (size, eye)
        return resample_field(u, origin, grid.shape, grid.torch_affine, *around)[0]
