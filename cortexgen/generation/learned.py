"""Images that a trained network draws, and labels that fit them."""

import warnings
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from cortexgen.atlas.fitting import fit_labels
from cortexgen.data.appearance import place_of
from cortexgen.data.covariates import CovariateEncoder
from cortexgen.data.style import STYLE, drawn_style, restyled
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Appearance, Rendered, Shape, UnfitAppearance
from cortexgen.io import Grid
from cortexgen.runner.memory import free_memory
from cortexgen.runner.precision import Precision, arithmetic_name, autocast

BEYOND = 0.5  # of the range of a style among the people, that may be asked for on either side of it
MARGIN = 12.0  # mm around the warped template that its brain may fill
EVEN = 8  # voxels: what divides a part's sides
VOXEL_BYTES = 700  # of memory that the network takes for a voxel of what it works on
PATCH = 96  # voxels a side, of the parts that a volume is worked on in where memory is short


class LearnedAppearance(Appearance):
    """Images of a diffusion model, of a style that is drawn from the training people's, once a brain.

    Arguments:
        module: a trained `AppearanceModule`.
        style: what is fixed of the style, such as `{noise: 0.01}`; see `data.style`.
        steps: network evaluations; the module's unless given.
        precision: of the network.
        patch: work on parts of so many voxels a side, which overlap, and whose answers are blended in each step; on the
            whole brain unless given, where memory allows it.

    Raises:
        UserError: for a style that there isn't, or one far out of the training people's range.
    """

    def __init__(
        self,
        module: Any,
        style: Mapping[str, float] | None = None,
        steps: int | None = None,
        precision: Precision = "auto",
        patch: int | None = None,
    ) -> None:
        if patch is not None and (patch < 2 * EVEN or patch % EVEN):
            raise UserError(f"appearance_patch: expected a multiple of {EVEN} from {2 * EVEN}, got {patch}")
        self.module, self.style, self.precision, self.patch = module, dict(style or {}), precision, patch
        self.people: list[dict[str, Any]] = module.contract["people"]
        if steps is not None:
            module.steps = steps
        self._check_style()

    def _check_style(self) -> None:
        for name, value in self.style.items():
            if name not in STYLE:
                raise UserError(f"style: there is no {name!r}; there are {', '.join(STYLE)}")
            values = [row[name] for row in self.people]
            low, high = min(values), max(values)
            reach = BEYOND * (high - low)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low - reach <= value <= high + reach:
                raise UserError(f"style: {name} is {low:.3g} to {high:.3g} in what was trained on, got {value}")

    def check(self, template: str, classes: Sequence[str], grid: Grid) -> None:
        known = self.module.contract["template"]
        if known["hash"] != template:
            ours = known["hash"][:12]
            raise UnfitAppearance(f"appearance: its weights' template has hash {ours}, this one {template:.12}")
        spacing = Grid.from_dict(self.module.contract["grid"]).spacing
        if max(abs(a - b) for a, b in zip(spacing, grid.spacing, strict=True)) > 0.01:
            ours, theirs = (" x ".join(f"{s:g}" for s in sizes) for sizes in (spacing, grid.spacing))
            raise UnfitAppearance(f"appearance: its weights make voxels of {ours} mm, these are {theirs} mm")
        needed, free = prod(grid.shape) * VOXEL_BYTES, free_memory(self.module.device)
        if self.patch is None and needed > free:
            self.patch = PATCH
            warnings.warn(
                f"appearance: a whole brain takes about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free; it "
                f"is worked on in parts of {PATCH} voxels a side",
                stacklevel=2,
            )

    def describe(self) -> dict[str, Any]:
        module = self.module
        options = {"appearance": "learned", "appearance_weights": module.weights_hash(), "style": self.style}
        arithmetic = arithmetic_name(module.device, self.precision)
        sampling = {f"appearance_{name}": getattr(module, name) for name in ("sampler", "steps", "guidance")}
        sampling |= {"appearance_patch": self.patch} if self.patch else {}
        return options | sampling | {"appearance_precision": arithmetic}

    def render(self, shape: Shape) -> Rendered:
        encoder = CovariateEncoder(self.module.contract["covariates"])
        given = encoder.known(shape.conditions)
        for name in encoder.specs.keys() & shape.conditions.keys() - given.keys():
            if (value := shape.conditions[name]) is not None:
                text = (
                    f"appearance: its weights know no {name} {value}; each brain looks as one of those that they know"
                )
                warnings.warn(text, stacklevel=2)
        chosen = drawn_style(self.people, given | self.style, shape.random("style"))
        box = _box(shape.image[0] > 0, shape.grid)
        generator = shape.random("appearance")
        place = place_of(shape.grid) / shape.growth
        parts = [x[box] for x in (shape.image, shape.labels, place)]

        def noise() -> torch.Tensor:
            return torch.randn((2, *shape.grid.shape), generator=generator)[box]

        image = torch.zeros_like(shape.image)
        with autocast(self.module.device, self.precision):
            image[box] = self.module.render(*parts, chosen, noise, self.patch)
        spacing = min(shape.grid.spacing)
        image = restyled(image, shape.labels, shape.classes, spacing, chosen)
        labels = fit_labels(image, shape.labels, shape.classes, spacing)
        return Rendered(image, labels, {name: chosen[name] for name in STYLE})


def _box(brain: Tensor, grid: Grid) -> tuple[slice, ...]:
    """The part of a grid with a brain `[D, H, W]` and what is around it; a network takes its sides as they are."""
    sides = [slice(None)]
    for axis, (n, spacing) in enumerate(zip(brain.shape, grid.spacing, strict=True)):
        inside = torch.nonzero(brain.movedim(axis, 0).flatten(1).any(dim=1)).flatten()
        low, high = int(inside.min()) - int(MARGIN / spacing), int(inside.max()) + int(MARGIN / spacing) + 1
        low = max(0, low)
        size = min(-(-(min(high, n) - low) // EVEN) * EVEN, n)
        low = max(0, min(low, n - size))
        sides.append(slice(low, low + size))
    return tuple(sides)
