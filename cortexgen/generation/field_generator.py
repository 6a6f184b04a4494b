"""From a drawn velocity to a labelled brain that passed its checks."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from math import log
from threading import Lock
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cortexgen.atlas.labels import numbered
from cortexgen.atlas.template import load_template
from cortexgen.contracts import Brain, Deformation, Generator, Space
from cortexgen.data.covariates import HEAD_SIZE
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Appearance, Shape, carried
from cortexgen.generation.velocities import Velocities
from cortexgen.io import Grid
from cortexgen.metrics.morphometry import growth_volumes, volume_weights
from cortexgen.registration.propagation import Propagation
from cortexgen.runner.threads import single_thread
from cortexgen.spatial import folded, identity, jacobian_determinant, warp, warp_labels
from cortexgen.spatial.precision import full_precision

VOLUME_LIMIT = 4.0  # standard deviations of the training cohort's log-volumes
LEAST_VOLUME = 0.1  # ml, of a region that is judged; a slab holds slivers of others
FEW, ROUNDS = 50, 8  # folded voxels that are smoothed away, as in registrations; rounds of it


class _Looks(NamedTuple):
    """A brain's image, labels by class, volumes, style, and the labels before they were fitted, should they be kept."""

    image: Tensor
    labels: Tensor | None = None
    volumes: Mapping[str, float] | None = None
    style: Mapping[str, Any] = MappingProxyType({})
    warped: Tensor | None = None


class FieldGenerator(Generator):
    """Draws velocities, checks them, and warps the template and its labels.

    Arguments:
        velocities: their distribution, and the options of what is made of them.
        appearance: of the brains; the warped template's unless given.

    Raises:
        UserError: if the template is not the one trained on, or not the appearance's.
    """

    @single_thread()
    @full_precision
    def __init__(self, velocities: Velocities, appearance: Appearance | None = None) -> None:
        self.source, self.contract, self.appearance = velocities, velocities.contract, appearance
        self._turn = nullcontext() if velocities.device.type == "cpu" else Lock()  # one micro-batch at a time in a GPU
        self.steps = self.contract["integration_steps"]
        self.velocity_grid = Grid.from_dict(self.contract["grid"])
        image_grid = Grid.from_dict(self.contract["image_grid"])
        self.grid = image_grid.at_spacing(velocities.spacing) if velocities.spacing else image_grid
        original = velocities.template or load_template(*self.contract["template_source"])
        expected = self.contract["template"]["hash"]
        if original.hash != expected:
            raise UserError(f"the weights' template has hash {expected:.12}, {original.name} has {original.hash:.12}")
        self.weights = None
        to_velocity = (original.grid, self.velocity_grid)
        if original.labels is not None:
            self.weights = volume_weights(original.labels, *to_velocity, len(original.classes))
        if velocities.native_size:
            self.mask_weights = volume_weights(original.mask.long(), *to_velocity, 2)
        self.shaped = original.to(self.grid)
        if appearance is not None:
            appearance.check(original.hash, original.classes, self.grid)
        self.template = self.shaped
        if velocities.parcellation is not None:
            given = velocities.parcellation.to(original.grid)
            original = replace(original, labels=given.labels, classes=given.names, numbers=given.numbers)
            self.template = original.to(self.grid)

    @property
    def batch(self) -> int:  # type: ignore[override]
        """Brains that are drawn together."""
        return self.source.batch

    def describe(self) -> dict[str, Any]:
        source = self.source
        names = (*source.run_options, "conditions", "sample_seed", "native_size", "save_fields")
        options = {name: getattr(source, name) for name in names} | {"grid": str(self.grid)}
        options |= {"classes": list(self.template.classes), "device": source.device.type}
        options |= {"precision": source.arithmetic_name, "threads": 1, "micro_batch": source.batch}
        looks = self.appearance
        options |= {"appearance": "template"} if looks is None else looks.describe()
        options |= {} if looks is None else {"warped_labels": source.warped_labels}
        template = self.contract["template"]["hash"]
        return {"Weights": source.weights_hash(), "Template": template, "Parameters": options}

    def maps(self, growth: float) -> Propagation:
        """Between the template and a brain whose head is larger by `growth` in each direction."""
        template, size = self.template, torch.diag(torch.tensor([growth] * 3 + [1.0], dtype=torch.float64))
        moving = Space(template.name, template.image, template.labels, self.grid, self.grid)
        return Propagation(moving, replace(moving, name="T1w", affine=size), self.velocity_grid, self.steps)

    def failed_checks(self, inverse: Tensor) -> list[str]:
        """Regional volumes of exp(-v) - id, `[1, 3, d, h, w]`, outside the training cohort's mean ± 4 SD."""
        if self.weights is None or "log_volume_mean" not in self.contract:
            return []
        volumes = growth_volumes(jacobian_determinant(inverse), self.weights, self.velocity_grid.voxel_volume)[0]
        z = (volumes.log() - self.contract["log_volume_mean"]) / self.contract["log_volume_std"].clamp(min=1e-6)
        names = self.contract["template"]["classes"]
        judged = self.contract["log_volume_mean"] > log(LEAST_VOLUME)
        beyond = torch.nonzero(judged & ~(z.abs() <= VOLUME_LIMIT)).flatten().tolist()
        return [f"{names[k]} at {float(z[k]):+.1f} SD" for k in beyond]

    def growth(self, inverse: Tensor, conditions: Mapping[str, Any]) -> float:
        """How much larger than in template space the head is, so that its brain has the volume asked for."""
        if not self.source.native_size:
            return 1.0
        volume = growth_volumes(jacobian_determinant(inverse), self.mask_weights, self.velocity_grid.voxel_volume)[0, 1]
        return float((conditions[HEAD_SIZE] / volume) ** (1 / 3))

    @single_thread()
    @full_precision
    def _brain(self, index: int, drawn: Tensor, conditions: dict[str, Any], rejected: list[str]) -> Brain | str:
        """The brain of a drawn velocity `[3, d, h, w]`, smoothed where it folds a little; or why it is none."""
        flows = self.maps(1.0).flows(drawn[None])
        growth = self.growth(flows.backward, conditions)
        folds = int(folded(torch.cat(flows)).sum())
        if folds > FEW:
            return f"{folds} folded voxels"
        maps, saved = self.maps(growth), self.source.save_fields
        found = maps.unfolded(drawn[None], ROUNDS, both=saved, flows=flows)
        if found.rounds < 0:
            return f"folds after {ROUNDS} rounds of smoothing"
        reasons = self.failed_checks(found.flows.backward)
        if reasons:
            return "; ".join(reasons)
        person = self.source.person(index, len(rejected), conditions)
        template, looks = self.template, self._looks(index, found.forward, growth, person)
        return Brain(
            index=index,
            image=looks.image,
            grid=self.grid,
            labels=None if looks.labels is None else numbered(looks.labels, template.numbers),
            classes=dict(zip(template.numbers or range(len(template.classes)), template.classes, strict=True)),
            field=Deformation(
                found.forward[0],
                found.velocity[0],
                self.velocity_grid,
                self.steps,
                template.name,
                growth,
                found.rounds,
                found.backward[0] if found.backward is not None else None,
                self.maps(1.0).log_jacobian(found.flows.backward)[0] if saved else None,
            ),
            volumes=looks.volumes,
            conditions=person,
            rejected=rejected,
            warped_labels=None if looks.warped is None else numbered(looks.warped, template.numbers),
            style=looks.style,
        )

    def _looks(self, index: int, displacement: Tensor, growth: float, person: Mapping[str, Any]) -> "_Looks":
        """Image and labels of a person's brain of a displacement `[1, 3, D, H, W]`."""
        template, shaped, appearance = self.template, self.shaped, self.appearance
        image = warp(template.image[None], displacement)[0]
        if template.labels is None:
            return _Looks(image)
        positions = identity(self.grid.shape) + displacement
        warped, sums = warp_labels(template.labels[None], positions, len(template.classes))
        labels, voxels = warped[0], sums[0]
        style: Mapping[str, Any] = {}
        if appearance is not None and shaped.labels is not None:
            own = shaped is template  # what fits an image is the template's own, another parcellation follows it
            before = labels if own else warp_labels(shaped.labels[None], positions, len(shaped.classes))[0][0]

            def random(what: str) -> torch.Generator:
                return self.source.random(index, what=what)

            shape = Shape(image, before, shaped.classes, self.grid, displacement[0], growth, person, random)
            with self._turn:
                image, fitted, style = appearance.render(shape)
            labels = fitted if own else carried(labels, before, fitted) * (image > 0)
            voxels = torch.bincount(labels.flatten(), minlength=len(template.classes))
        millilitres = (voxels * self.grid.voxel_volume / 1000).tolist()
        volumes = dict(zip(template.classes[1:], millilitres[1:], strict=True))
        return _Looks(image, labels, volumes, style, warped[0] if style and self.source.warped_labels else None)

    def draws(self, wanted: Sequence[int]) -> Iterator[Brain]:
        """Brains of one micro-batch, as they pass their checks.

        Arguments:
            wanted: numbers in the cohort. The others of the micro-batch are drawn along and dropped, so that who is
                wanted changes nothing.

        Raises:
            UserError: if one failed its checks too often.
        """
        if not wanted:
            return
        source, rejected = self.source, {k: list[str]() for k in wanted}
        indices = source.together(wanted[0])
        conditions = {k: source.conditions_of(k) for k in indices}
        attempt = 0
        while rejected:
            with self._turn:
                velocities = source.samples(indices, attempt, list(conditions.values()))
            for k, before in list(rejected.items()):
                found = self._brain(k, velocities[k - indices.start], conditions[k], before)
                if isinstance(found, Brain):
                    del rejected[k]
                    yield found
                    continue
                before.append(found)
                if len(before) > source.max_redraws:
                    raise UserError(
                        f"sample {k + 1}: {len(before)} draws failed the checks, the last one with {found}; "
                        "train longer, or raise max_redraws"
                    )
            attempt += 1

    def draw(self, index: int) -> Brain:
        return next(self.draws([index]))
