"""What a warped template lacks to look like somebody's brain: an image of its own, and labels that fit it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io import Grid


@dataclass(frozen=True)
class Shape:
    """The template under the field of a brain, before that gets its appearance.

    Attributes:
        image: the warped template, `[1, D, H, W]` in [0, 1].
        labels: likewise, indices of `classes`.
        classes: their names.
        grid: of both.
        displacement: that warped them, `[3, D, H, W]` in voxels.
        growth: of the head against template space, in each direction.
        conditions: the person's covariates.
        random: the brain's random numbers for a purpose.
    """

    image: Tensor
    labels: Tensor
    classes: Sequence[str]
    grid: Grid
    displacement: Tensor
    growth: float
    conditions: Mapping[str, Any]
    random: Callable[[str], torch.Generator]


class Rendered(NamedTuple):
    """An image `[1, D, H, W]` in [0, 1], labels that fit it, indices of the shape's classes, and what it is like."""

    image: Tensor
    labels: Tensor
    style: Mapping[str, Any]


class UnfitAppearance(UserError):
    """An appearance of another template, or for other voxels."""


class Appearance(ABC):
    """Gives a brain's shape an image."""

    @abstractmethod
    def check(self, template: str, classes: Sequence[str], grid: Grid) -> None:
        """See that it fits a template, by its hash and its classes, and the grid of the brains.

        Raises:
            UnfitAppearance: if not.
        """

    @abstractmethod
    def render(self, shape: Shape) -> Rendered:
        """The image of a shape, and its labels."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What images depend on, in plain types."""


def carried(parcels: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """A parcellation of labelled voxels, taken along where the labels change.

    A voxel of another class than before gets the parcel of the nearest voxel that had that class.

    Arguments:
        parcels, before, after: `[1, D, H, W]`, integers.
    """
    out = parcels.clone()
    changed = before != after
    for k in after[changed].unique().tolist():
        there = before[0] == k
        if not there.any():
            continue
        nearest = distance_transform_edt(~there.numpy(), return_distances=False, return_indices=True)
        here = changed[0] & (after[0] == k)
        d, h, w = (torch.from_numpy(axis)[here].long() for axis in nearest)
        out[0, here] = parcels[0, d, h, w]
    return out
