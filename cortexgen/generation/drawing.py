"""From a drawn velocity to a labelled brain that passed its checks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import log
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cortexgen.atlas.labels import numbered
from cortexgen.atlas.template import load_template
from cortexgen.data.covariates import HEAD_SIZE
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.metrics import flow_volumes, volume_weights
from cortexgen.runner.threads import single_thread
from cortexgen.spatial import fold_places, folded, identity, integrate, resample_field, unfold, warp, warp_labels
from cortexgen.spatial.precision import full_precision

if TYPE_CHECKING:
    from cortexgen.modules.generator import GeneratorModule

VOLUME_LIMIT = 4.0  # standard deviations of the training cohort's log-volumes
LEAST_VOLUME = 0.1  # ml, of a region that is judged; a slab holds slivers of others
FEW, ROUNDS = 50, 8  # folded voxels that are smoothed away, as in registrations; rounds of it


@dataclass(frozen=True)
class Sample:
    """A brain that was drawn.

    Attributes:
        index: its number in the cohort, from 0.
        velocity: `[3, d, h, w]` in voxels of its grid.
        inverse_flow: exp(-velocity) - id, like it.
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

    index: int
    velocity: Tensor
    inverse_flow: Tensor
    displacement: Tensor
    image: Tensor
    labels: Tensor | None
    grid: Grid
    growth: float
    volumes: Tensor | None
    conditions: dict[str, Any]
    unfolding: int
    rejected: list[str]


class Flows(NamedTuple):
    """exp(v) - id and exp(-v) - id, `[1, 3, d, h, w]` in voxels."""

    forward: Tensor
    backward: Tensor


class Sampler:
    """Draws, checks and warps: what a generator's module makes of the template.

    Raises:
        UserError: if the template is not the one trained on.
    """

    @single_thread()
    @full_precision
    def __init__(self, module: "GeneratorModule") -> None:
        self.module, self.contract = module, module.contract
        self._turn = nullcontext() if module.device.type == "cpu" else Lock()  # one micro-batch at a time in a GPU
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
            given = module.parcellation.to(original.grid)
            original = replace(original, labels=given.labels, classes=given.names, numbers=given.numbers)
        self.template = original.to(self.grid)

    def _flows(self, velocity: Tensor) -> Flows:
        """exp(v) - id and its inverse's displacement of `[3, d, h, w]`: the one place where a drawn velocity is
        integrated."""
        forward, backward = (integrate(velocity[None], self.steps, inverse) for inverse in (False, True))
        return Flows(forward, backward)

    def _folds(self, flows: Flows, growth: float) -> tuple[Tensor, Tensor]:
        """Where the fields that are written fold, in voxels of the velocity's grid, `[n, 3]`; and the displacement."""
        voxels, eye = torch.linalg.inv(self.velocity_grid.torch_affine), torch.eye(4, dtype=torch.float64)
        places, fields = [], []
        for inverse, flow in enumerate(flows):
            places.append(fold_places(flow, flow, eye))
            if not inverse or self.module.save_fields:
                to_voxels = voxels @ (eye if inverse else self._size(1 / growth)) @ self.grid.torch_affine
                fields.append(self.on_image(flow, growth, bool(inverse)))
                places.append(fold_places(fields[-1][None], flow, to_voxels))
        return torch.cat(places), fields[0]

    def failed_checks(self, inverse: Tensor) -> list[str]:
        """Regional volumes of exp(-v) - id, `[1, 3, d, h, w]`, outside the training cohort's mean ± 4 SD."""
        if self.weights is None or "log_volume_mean" not in self.contract:
            return []
        volumes = flow_volumes(inverse, self.weights, self.velocity_grid.voxel_volume)[0]
        z = (volumes.log() - self.contract["log_volume_mean"]) / self.contract["log_volume_std"].clamp(min=1e-6)
        names = self.contract["template"]["classes"]
        judged = self.contract["log_volume_mean"] > log(LEAST_VOLUME)
        beyond = torch.nonzero(judged & ~(z.abs() <= VOLUME_LIMIT)).flatten().tolist()
        return [f"{names[k]} at {float(z[k]):+.1f} SD" for k in beyond]

    def growth(self, inverse: Tensor, conditions: Mapping[str, Any]) -> float:
        """How much larger than in template space the head is, so that its brain has the volume asked for."""
        if not self.module.native_size:
            return 1.0
        volume = flow_volumes(inverse, self.mask_weights, self.velocity_grid.voxel_volume)[0, 1]
        return float((conditions[HEAD_SIZE] / volume) ** (1 / 3))

    @single_thread()
    @full_precision
    def _sample(self, index: int, drawn: Tensor, conditions: dict[str, Any], rejected: list[str]) -> Sample | str:
        """The brain of a drawn velocity `[3, d, h, w]`, smoothed where it folds a little; or why it is none."""
        flows = self._flows(drawn)
        growth = self.growth(flows.backward, conditions)
        folds = int(folded(torch.cat(flows)).sum())
        if folds > FEW:
            return f"{folds} folded voxels"
        last, displacement = drawn[None], drawn

        def trouble(velocity: Tensor) -> Tensor:
            nonlocal last, flows, displacement
            if velocity is not last:
                last, flows = velocity, self._flows(velocity[0])
            places, displacement = self._folds(flows, growth)
            return places

        velocity, rounds = unfold(last, trouble, ROUNDS)
        if rounds < 0:
            return f"folds after {ROUNDS} rounds of smoothing"
        reasons = self.failed_checks(flows.backward)
        if reasons:
            return "; ".join(reasons)
        template, grid = self.template, self.grid
        image = warp(template.image[None], displacement[None])[0]
        labels = volumes = None
        if template.labels is not None:
            positions = identity(grid.shape) + displacement[None]
            labels, sums = warp_labels(template.labels[None], positions, len(template.classes))
            labels, volumes = numbered(labels[0], template.numbers), sums[0] * grid.voxel_volume / 1000
        return Sample(
            index=index,
            velocity=velocity[0],
            inverse_flow=flows.backward[0],
            displacement=displacement,
            image=image,
            labels=labels,
            grid=grid,
            growth=growth,
            volumes=volumes,
            conditions=conditions,
            unfolding=rounds,
            rejected=rejected,
        )

    def draws(self, wanted: Sequence[int]) -> Iterator[Sample]:
        """Samples of one micro-batch, as they pass their checks.

        Arguments:
            wanted: numbers in the cohort. The others of the micro-batch are drawn along and dropped, so that who is
                wanted changes nothing.

        Raises:
            UserError: if one failed its checks too often.
        """
        if not wanted:
            return
        module, rejected = self.module, {k: list[str]() for k in wanted}
        indices = module.together(wanted[0])
        conditions = {k: module.conditions_of(k) for k in indices}
        attempt = 0
        while rejected:
            with self._turn:
                velocities = module.samples(indices, attempt, list(conditions.values()))
            for k, before in list(rejected.items()):
                found = self._sample(k, velocities[k - indices.start], conditions[k], before)
                if isinstance(found, Sample):
                    del rejected[k]
                    yield found
                    continue
                before.append(found)
                if len(before) > module.max_redraws:
                    raise UserError(
                        f"sample {k + 1}: {len(before)} draws failed the checks, the last one with {found}; "
                        "train longer, or raise max_redraws"
                    )
            attempt += 1

    def draw(self, index: int) -> Sample:
        """Sample `index` of the cohort.

        Raises:
            UserError: if it failed its checks too often.
        """
        return next(self.draws([index]))

    def on_image(self, flow: Tensor, growth: float, inverse: bool = False) -> Tensor:
        """The displacement of a flow exp(±v) - id on the images' grid, `[3, D, H, W]`: it warps the template onto the
        sample, whose head is larger by `growth`, or back."""
        origin, grid = self.velocity_grid.torch_affine, self.grid
        if growth == 1:
            return resample_field(flow, origin, grid.shape, grid.torch_affine)[0]
        eye, size = self._size(1), self._size(growth if inverse else 1 / growth)
        around = (eye, size) if inverse else (size, eye)
        return resample_field(flow, origin, grid.shape, grid.torch_affine, *around)[0]

    @staticmethod
    def _size(factor: float) -> Tensor:
        return torch.diag(torch.tensor([factor] * 3 + [1.0], dtype=torch.float64))
