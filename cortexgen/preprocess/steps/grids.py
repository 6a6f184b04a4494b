"""Onto the grid that is wanted."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.template import Template
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.step import Step
from cortexgen.spatial import resample


class Resample(Step):
    """Bring image and mask to the template's space: one linear interpolation, with the affine in it.

    Arguments:
        spacing: voxel size in millimetres, on the template's field of view.
        shape: sizes D, H, W instead, about the centre of the template's field of view.
    """

    name, after = "resample", ("denoise", "bias", "strip", "align")

    def __init__(self, spacing: float = 1.0, shape: Sequence[int] | None = None) -> None:
        if spacing <= 0:
            raise UserError(f"Resample: expected a spacing above 0 mm, got {spacing:g}")
        self.spacing, self.shape = spacing, sizes("Resample", shape)

    def target(self, template: Template) -> Grid:
        """The grid wanted.

        Raises:
            UserError: if it is none, or too large for this machine.
        """
        return template.grid.at_spacing(self.spacing, self.shape)

    def check(self, template: Template) -> None:
        super().check(template)
        self.target(template)

    def __call__(self, subject: Subject) -> None:
        target = self.target(subject.template)
        moved = torch.from_numpy(np.linalg.inv(np.eye(4) if subject.affine is None else subject.affine))
        mask = subject.inside
        both = torch.stack([subject.image * mask, mask.float()])
        both = resample(both, moved @ subject.grid.torch_affine, target.shape, target.torch_affine)
        subject.native = mask, subject.grid
        subject.image, subject.mask, subject.grid = both[0], both[1] > 0.5, target
        if not subject.mask.any():
            raise UserError(f"{subject.source}: none of its brain lies in the field of view of {subject.template.name}")


class Crop(Step):
    """Cut or pad to a size, without interpolation.

    Arguments:
        shape: sizes D, H, W, of the middle; or "brain", the bounding box of the template's brain.
    """

    name, after, needs = "crop", ("resample",), ("resample",)  # all scans are cut alike

    def __init__(self, shape: Literal["brain"] | Sequence[int] = "brain") -> None:
        self.shape = shape if shape == "brain" else sizes("Crop", shape)

    def __call__(self, subject: Subject) -> None:
        grid = subject.grid
        whole = self.shape or grid.shape
        target = brain_box(subject.template.to(grid)) if whole == "brain" else grid.window(whole)
        low = np.linalg.solve(grid.affine, target.affine[:, 3])[:3].round().astype(int).tolist()
        high = [first + m - n for first, m, n in zip(low, target.shape, grid.shape, strict=True)]
        sides = [side for first, last in zip(low[::-1], high[::-1], strict=True) for side in (-first, last)]
        subject.image, subject.grid = F.pad(subject.image, sides), target
        subject.mask = None if subject.mask is None else F.pad(subject.mask, sides)


def sizes(step: str, shape: Any) -> list[int] | None:
    """Three sizes as a list.

    Raises:
        UserError: if they are something else.
    """
    if shape is None:
        return None
    if isinstance(shape, str) or len(shape) != 3 or min(shape) < 2:
        raise UserError(f"{step}: expected three sizes D, H, W of 2 and more, got {shape}")
    return list(shape)
