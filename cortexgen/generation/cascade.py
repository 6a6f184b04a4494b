"""Appearances of fine voxels, begun with coarse ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from cortexgen.atlas.labels import labels_on
from cortexgen.data.style import STYLE
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Appearance, Rendered, Shape, UnfitAppearance
from cortexgen.generation.learned import LearnedAppearance
from cortexgen.io import Grid
from cortexgen.spatial import resample


class CascadedAppearance(Appearance):
    """An image at the voxel size of one model, made finer by another that was trained to begin with such images.

    Arguments:
        coarse: gives a brain its image and labels at its own voxel size.
        finer: begins with these instead of the warped template; a fit with `data.coarse`.

    Raises:
        UserError: if the second wasn't trained for what the first makes.
    """

    def __init__(self, coarse: LearnedAppearance, finer: LearnedAppearance) -> None:
        self.coarse, self.finer = coarse, finer
        given = min(Grid.from_dict(coarse.module.contract["grid"]).spacing)
        wanted = finer.module.contract.get("coarse")
        if wanted is None:
            raise UserError("finer: these weights begin with warped templates; train some with data.coarse")
        if abs(given - wanted) > 0.01:
            raise UserError(f"finer: these weights begin with voxels of {wanted:g} mm, the appearance makes {given:g}")
        self.spacing = wanted

    def check(self, template: str, classes: Sequence[str], grid: Grid) -> None:
        try:
            self.finer.check(template, classes, grid)
        except UnfitAppearance as error:
            size = min(Grid.from_dict(self.finer.module.contract["grid"]).spacing)
            raise UnfitAppearance(f"{error}; give --resolution {size:g}") from None
        self.coarse.check(template, classes, grid.at_spacing(self.spacing))

    def describe(self) -> dict[str, Any]:
        return self.coarse.describe() | {f"finer_{k}": v for k, v in self.finer.describe().items() if k != "style"}

    def render(self, shape: Shape) -> Rendered:
        grid, small = shape.grid, shape.grid.at_spacing(self.spacing)
        image = resample(shape.image[None], grid.torch_affine, small.shape, small.torch_affine)[0]
        below = replace(shape, image=image, labels=labels_on(shape.labels, grid, small), grid=small)
        found = self.coarse.render(below)
        up = resample(found.image[None], small.torch_affine, grid.shape, grid.torch_affine)[0]
        style = {name: value for name, value in found.style.items() if name in STYLE}

        def random(what: str) -> torch.Generator:
            return shape.random(f"finer {what}")

        labels = labels_on(found.labels, small, grid)
        begun = replace(shape, image=up, labels=labels, conditions={**shape.conditions, **style}, random=random)
        return self.finer.render(begun)
