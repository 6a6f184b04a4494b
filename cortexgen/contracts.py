"""What the rooms hand each other, and what a generator, a registration and a labeller must have."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from cortexgen.io import Grid


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
    affine: Tensor = dataclasses.field(default_factory=lambda: torch.eye(4, dtype=torch.float64))
    classes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


class Synthesis(NamedTuple):
    """What reverse diffusion made of a moving image: steps t with x_t, the result, and where they lie.

    All images are `[D, H, W]`, in [0, 1] but for noise.
    """

    moving: Tensor
    fixed: Tensor
    states: list[tuple[int, Tensor]]
    result: Tensor
    grid: Grid


class Written(NamedTuple):
    """A displacement `[1, 3, d, h, w]` in voxels of the grid that it is written on."""

    displacement: Tensor
    grid: Grid


class _Result:
    """What `predict` returns; Lightning brings it to the main memory, where it is."""

    def to(self, *_: Any, **__: Any) -> Self:
        return self


@dataclass(frozen=True)
class Registered(_Result):
    """A registration in the spaces of its images.

    Attributes:
        moving, fixed: the images and where they lie.
        velocity: `[1, 3, d, h, w]`, after unfolding, in voxels of its grid in template space.
        velocity_grid: that grid.
        steps: squarings of the velocity; with 0 it is a displacement.
        displacement: warps the moving image onto the fixed one, `[1, 3, D, H, W]` in voxels of the fixed grid.
        inverse: the other way, in voxels of the moving grid.
        log_jacobian: of the nonlinear growth, `[1, 1, D, H, W]` on the moving grid.
        warped: the moving image on the fixed grid, `[1, D, H, W]`.
        labels: the moving labels there, or None.
        volumes: of each class in the fixed image by summed probability, in millilitres, or None.
        folded: voxel cubes with a Jacobian determinant that is not positive, both ways, and on the velocity's grid.
        unfolding: rounds of smoothing that this took; -1 if it still folds.
        seconds: that the solution took.
        iterations: of its refinement; None if there was none.
        synthesis: what reverse diffusion made of the pair, where that was asked for.
        coarse: displacement and inverse on coarser grids, where those are to be written instead.
    """

    moving: Space
    fixed: Space
    velocity: Tensor
    velocity_grid: Grid
    steps: int
    displacement: Tensor
    inverse: Tensor
    log_jacobian: Tensor
    warped: Tensor
    labels: Tensor | None
    volumes: Tensor | None
    folded: int
    unfolding: int
    seconds: float = 0.0
    iterations: int | None = None
    synthesis: Synthesis | None = None
    coarse: tuple[Written, ...] = ()

    @property
    def written(self) -> tuple[Written, ...]:
        """Displacement and inverse as they are written."""
        return self.coarse or (Written(self.displacement, self.fixed.grid), Written(self.inverse, self.moving.grid))


class Failed(NamedTuple):
    """Why one subject of a cohort has no result."""

    reason: str


@dataclass(frozen=True)
class Deformation:
    """The field of a brain that is a warped template.

    Attributes:
        displacement: warps the template onto the brain's grid, `[3, D, H, W]` in voxels of it.
        velocity: `[3, d, h, w]` in voxels of `velocity_grid`.
        velocity_grid: in template space.
        steps: squarings; with 0 the velocity is a displacement.
        template: its name.
        growth: of the head against template space, in each direction; 1 unless the size was drawn.
        unfolding: rounds of local smoothing that it took until nothing folded.
        inverse: the way back, like `displacement`, where it was asked for.
        log_jacobian: of the nonlinear growth, `[1, D, H, W]` on the brain's grid, likewise.
    """

    displacement: Tensor
    velocity: Tensor
    velocity_grid: Grid
    steps: int
    template: str
    growth: float = 1.0
    unfolding: int = 0
    inverse: Tensor | None = None
    log_jacobian: Tensor | None = None


@dataclass(frozen=True)
class Brain(_Result):
    """A brain that was drawn.

    Attributes:
        index: its number in the cohort, from 0.
        image: `[1, D, H, W]` in [0, 1].
        grid: of the image, in the space of the synthetic subject.
        labels: `[1, D, H, W]`, the numbers of `classes`, or None.
        classes: names of the labels.
        field: that it was made by, or None.
        volumes: of each class in millilitres, or None.
        conditions: the covariates that it was drawn for: what was asked, and the draw's own where nothing was.
        rejected: why the draws before it were discarded.
        warped_labels: what the field alone makes of the template's, like `labels`, where those fit the image.
        style: of the image, by name.
    """

    index: int
    image: Tensor
    grid: Grid
    labels: Tensor | None = None
    classes: Mapping[int, str] = dataclasses.field(default_factory=dict)
    field: Deformation | None = None
    volumes: Mapping[str, float] | None = None
    conditions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rejected: Sequence[str] = ()
    warped_labels: Tensor | None = None
    style: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Labelled(NamedTuple):
    """What is known of a brain's anatomy.

    Attributes:
        labels: `[1, D, H, W]`, int64.
        log_jacobian: growth of the template's voxels in it, `[1, d, h, w]` on the labeller's field grid, or None.
        velocity: that takes the template to it, `[3, d, h, w]` in voxels of that grid, or None.
    """

    labels: Tensor
    log_jacobian: Tensor | None = None
    velocity: Tensor | None = None


class Generator(ABC):
    """Draws brains; brain k depends on its seed, its options and k alone.

    Attributes:
        batch: brains that are drawn together.
    """

    batch: int = 1

    @abstractmethod
    def draw(self, index: int) -> Brain:
        """Brain `index` of the cohort.

        Raises:
            UserError: if none passes its checks.
        """

    def draws(self, wanted: Sequence[int]) -> Iterator[Brain]:
        """The brains of one batch that are wanted, each as soon as it is there."""
        return map(self.draw, wanted)

    def describe(self) -> dict[str, Any]:
        """What brains depend on, for the records of a cohort: "Weights" and "Template", hashes; "Parameters"."""
        return {}


class Solved(NamedTuple):
    """A pair's field `[1, 3, d, h, w]`, and the iterations of its refinement, None if there was none."""

    field: Tensor
    iterations: int | None = None


class Frame(NamedTuple):
    """Where a registration works.

    Attributes:
        grid: of the images, in template space.
        velocity_grid: of the field, in voxels of which it is.
        steps: squarings of a velocity; 0 if the field is a displacement.
        template_hash: of the only template that it can take, if there is one.
        preprocessing: of the images that it was trained on, as BIDS describes what generated them.
    """

    grid: Grid
    velocity_grid: Grid
    steps: int = 0
    template_hash: str | None = None
    preprocessing: Sequence[Any] = ()


class Registration(ABC):
    """Solves pairs of images in template space for the field that takes one to the other."""

    @property
    @abstractmethod
    def frame(self) -> Frame:
        """Where it works."""

    @abstractmethod
    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        """The pull-back field of `[1, 1, D, H, W]` in [0, 1] each: `warped(p) = moving(p + u(p))`, u = exp(v) - id."""

    def describe(self) -> dict[str, Any]:
        """What fields depend on, for the records of a cohort: "Weights" and "Template", hashes; "Parameters"."""
        return {}


class Labeller(ABC):
    """Labels brains, real and synthetic ones alike.

    Attributes:
        description: where labels come from, for reports.
        key: what they depend on.
        classes: names by index; None where every map has its own indices.
    """

    description: str
    key: str
    classes: Mapping[int, str] | None = None

    @abstractmethod
    def label(self, image: Tensor, grid: Grid, source: Path, given: Tensor | None = None) -> Labelled:
        """The labels of a brain.

        Arguments:
            image: `[1, D, H, W]` in [0, 1].
            source: what to name in an error.
            given: the label map that came with it, `[1, D, H, W]`.

        Raises:
            UserError: if there are none for it.
        """
