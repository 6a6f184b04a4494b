"""Registration of images from anywhere: affine to template space, one pass, results where the images are."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cortexgen.atlas.alignment import align, check_alignment, in_template_space
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.labels import LabelMap, classes_of, numbered, read_labels
from cortexgen.atlas.plausibility import check_brain
from cortexgen.atlas.template import Template
from cortexgen.contracts import Frame, Registered, Registration, Solved, Space
from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.header import NO_CHOICE
from cortexgen.registration.propagation import Propagation
from cortexgen.runner.precision import Precision, autocast, choose_device
from cortexgen.spatial import resample

Affine = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Prepared:
    """An image ready to be registered.

    Attributes:
        space: the image, its labels and the affine from template space.
        model_image: the image on the module's grid, `[1, 1, D, H, W]`.
    """

    space: Space
    model_image: Tensor


class Registrar:
    """Registers pairs of T1w, wherever they lie, by something that solves pairs in template space.

    Arguments:
        registration: a trained network, for instance.
        template: the one that it was trained with, as it was given (not resampled).
        device: "auto", "cpu", "cuda", ...
        precision: of a network; the fields are float32.
        affine: run the affine to template space where an image isn't there yet, always, or never.
        choice: what decides where the headers of images and labels leave a choice.
        nearest: take labels from the nearest voxel instead of the largest interpolated indicator.
        field_spacing: of the fields that are written in millimetres, where that is coarser than their images.

    Raises:
        UserError: if the template is another one than the weights' or there is no such device.
    """

    def __init__(
        self,
        registration: Registration,
        template: Template,
        device: str = "auto",
        precision: Precision = "auto",
        affine: Affine = "auto",
        choice: HeaderChoice = NO_CHOICE,
        nearest: bool = False,
        field_spacing: float = 0.0,
    ) -> None:
        expected = registration.frame.template_hash
        if expected is not None and template.hash != expected:
            raise UserError(f"the weights' template has hash {expected:.12}, {template.name} has {template.hash:.12}")
        self.device, self.precision, self.affine = choose_device(device), precision, affine
        self.choice, self.nearest, self.field_spacing = choice, nearest, field_spacing
        if isinstance(registration, torch.nn.Module):
            registration.to(self.device).eval()
        self.registration, self.template, self.grid = registration, template, registration.frame.grid
        self._atlases: dict[str, Prepared] = {}

    @property
    def frame(self) -> Frame:
        """Where it works, which depends on its options."""
        return self.registration.frame

    def atlas(self, spacing: float) -> Prepared:
        """The template, as fine as `spacing` (mm) asks for and its file allows; its results lie at the model's voxel
        size on the whole of its field of view.
        """
        original = self.template
        finest = max(original.grid.spacing)
        grid = original.grid.at_spacing(round(spacing, 3)) if spacing > finest + 0.1 else original.grid
        if str(grid) not in self._atlases:
            at, out = original.to(grid), original.grid.at_spacing(max(self.grid.spacing))
            placed = Space(original.name, at.image, at.labels, at.grid, out)
            space = replace(placed, classes=original.classes, numbers=original.numbers)
            self._atlases[str(grid)] = Prepared(space, replace(original, labels=None).to(self.grid).image[None])
        return self._atlases[str(grid)]

    def prepare(
        self, path: Path, labels: Path | None = None, name: str = "T1w", label_table: Path | None = None
    ) -> Prepared:
        """Read an image, check it, and find its affine.

        Raises:
            UserError: if it is not a skull-stripped brain that can be aligned to the template; the line says why.
        """
        image, grid, dseg = self._read(path, labels, label_table)
        return self.prepared(image, grid, path, dseg, name)

    def check(self, path: Path, labels: Path | None = None) -> None:
        """See that an image and its labels can be read and show a brain; the affine isn't tried.

        Raises:
            UserError: as `prepare`.
        """
        image, grid, _ = self._read(path, labels)
        check_brain(image, grid, path)

    def _read(
        self, path: Path, labels: Path | None, label_table: Path | None = None
    ) -> tuple[Tensor, Grid, LabelMap | None]:
        image, grid = read_volume(path, choice=self.choice)
        dseg = read_labels(labels, label_table, self.choice).to(grid) if labels else None
        return normalize(image, path), grid, dseg

    def prepared(
        self,
        image: Tensor,
        grid: Grid,
        source: Path,
        dseg: LabelMap | None = None,
        name: str = "T1w",
    ) -> Prepared:
        """Check an image `[1, D, H, W]` in [0, 1] that was read from `source`, and find its affine.

        Raises:
            UserError: as `prepare`.
        """
        check_brain(image, grid, source)
        matrix = torch.eye(4, dtype=torch.float64)
        if self.affine == "always" or not in_template_space(image, grid, self.template):
            if self.affine != "never":
                matrix = torch.from_numpy(align(image, grid, self.template, source))
            check_alignment(image, grid, self.template, matrix.numpy(), source)
        model = resample(image[None], grid.torch_affine, self.grid.shape, matrix @ self.grid.torch_affine)
        labels = (None, (), ()) if dseg is None else (dseg.labels, dseg.names, dseg.numbers)
        return Prepared(Space(name, image, labels[0], grid, grid, matrix, *labels[1:]), model)

    def pair(self, moving: Prepared, fixed: Prepared) -> tuple[tuple[Tensor, Tensor], Propagation]:
        """The two images on the module's grid and device, and the maps between their own spaces.

        Raises:
            UserError: if the fixed labels hold a class that the moving ones don't have.
        """
        target, labels, classes = fixed.space, fixed.space.labels, moving.space.classes
        if labels is not None and classes:
            known = moving.space.numbers or range(len(classes))
            labels = classes_of(numbered(labels, target.numbers), known, f"the dseg of {target.name}")
            target = replace(target, labels=labels, classes=classes, numbers=moving.space.numbers)
        images = (moving.model_image.to(self.device), fixed.model_image.to(self.device))
        frame = self.frame
        return images, Propagation(moving.space, target, frame.velocity_grid, frame.steps, self.field_spacing)

    def solve(self, moving: Prepared, fixed: Prepared) -> tuple[Solved, Propagation]:
        """The field of a pair `[1, 3, d, h, w]`, and the maps that it stands for."""
        images, maps = self.pair(moving, fixed)
        with self.arithmetic():
            solved = self.registration.solve(*images)
        return solved._replace(field=solved.field.float().cpu()), maps

    def register(self, moving: Prepared, fixed: Prepared) -> Registered:
        """Register a pair; its labels are classes of the moving image's, see `in_numbers`."""
        images, maps = self.pair(moving, fixed)
        with self.arithmetic():
            return registered(self.registration, images, maps, self.nearest)

    def arithmetic(self) -> AbstractContextManager:
        """The context that a network runs in."""
        return autocast(self.device, self.precision)

    def info(self, moving: Prepared) -> dict[str, Any]:
        """What the sidecar of a velocity says about where it came from."""
        return {
            "Template": self.template.name,
            "TemplateHash": self.template.hash,
            "ImageGrid": moving.space.grid.to_dict(),
            "Preprocessing": self.frame.preprocessing,
        }


def registered(
    registration: Registration, images: tuple[Tensor, Tensor], maps: Propagation, nearest: bool = False
) -> Registered:
    """Solve a pair, and carry it over to its images' own spaces.

    Arguments:
        images: moving and fixed, `[1, 1, D, H, W]`, on the registration's grid.
        maps: between their own spaces.
        nearest: as of `Registrar`.
    """
    start = time.perf_counter()
    solved = registration.solve(*images)
    seconds = round(time.perf_counter() - start, 3)
    result = maps.run(solved.field.float().cpu(), nearest)
    return replace(result, seconds=seconds, iterations=solved.iterations)


def in_numbers(result: Registered) -> Registered:
    """A registration whose labels have the numbers of their files, not those of classes."""
    moving, fixed = _in_numbers(result.moving), _in_numbers(result.fixed)
    labels = None if result.labels is None else numbered(result.labels, moving.numbers)
    return replace(result, moving=moving, fixed=fixed, labels=labels)


def _in_numbers(space: Space) -> Space:
    """A space whose labels are those of its file."""
    return space if space.labels is None else replace(space, labels=numbered(space.labels, space.numbers))
