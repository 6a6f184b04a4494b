"""Real brains in new shapes: what needs no trained appearance, and keeps no secret."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Appearance, Rendered, Shape, UnfitAppearance
from cortexgen.io import Grid, read_grid
from cortexgen.registration.registrar import Prepared, Registrar
from cortexgen.spatial import compose, identity, resample_field, warp, warp_labels

KEPT = 64  # donors whose registrations are held


class DonorAppearance(Appearance):
    """The image of a real brain, with its own labels, under the field that takes it to the template, then the new one.

    Both fields are composed, so that the image is interpolated once. Whose image it is can be seen.

    Arguments:
        root: a cohort of skull-stripped T1w with labels of the template's classes, on the brains' grid.
        registrar: that finds the way from each donor to the template.

    Raises:
        UserError: if nobody in the cohort has labels.
    """

    def __init__(self, root: Path, registrar: Registrar) -> None:
        self.root, self.registrar = Path(root), registrar
        self.donors = [scan for scan in read_cohort(self.root, "*_T1w.nii*", "*_dseg.nii*") if scan.labels is not None]
        if not self.donors:
            raise UserError(f"donors: nobody in {self.root} has labels, *_dseg.nii* beside the image")
        self._found: dict[str, tuple[Prepared, Tensor]] = {}
        self._turn = Lock()

    def check(self, template: str, classes: Sequence[str], grid: Grid) -> None:
        if self.registrar.template.hash != template:
            raise UnfitAppearance("donors: they are registered to another template than the fields'")
        for donor in self.donors:
            found = read_grid(donor.image)
            if not found.matches(grid):
                raise UnfitAppearance(f"donors: {donor.image} lies on {found}; the brains are made on {grid}")

    def describe(self) -> dict[str, Any]:
        return {"appearance": "donors", "donors": str(self.root), "private": False}

    def _registered(self, donor: Scan) -> tuple[Prepared, Tensor]:
        """A donor, and the displacement that warps it onto the template, on its own grid."""
        with self._turn:
            if donor.name not in self._found:
                prepared = self.registrar.prepare(donor.image, donor.labels)
                moving = self.registrar.atlas(min(prepared.space.grid.spacing))
                result = self.registrar.register(moving, prepared)
                if len(self._found) == KEPT:
                    self._found.pop(next(iter(self._found)))
                grid, own = result.moving.grid, prepared.space.grid
                back = resample_field(result.inverse, grid.torch_affine, own.shape, own.torch_affine)
                self._found[donor.name] = prepared, back
            return self._found[donor.name]

    def render(self, shape: Shape) -> Rendered:
        donor = self.donors[int(torch.randint(len(self.donors), (), generator=shape.random("donor")))]
        prepared, back = self._registered(donor)
        way, space = compose(back, shape.displacement[None]), prepared.space
        image = warp(space.image[None], way)[0]
        positions = identity(shape.grid.shape) + way
        labels = warp_labels(space.labels[None], positions, len(shape.classes))[0][0]  # type: ignore[index]
        return Rendered(image, labels, {"donor": donor.name})
