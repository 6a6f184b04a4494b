"""Skull stripping."""

import warnings
from typing import Literal

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cortexgen.atlas.intensity import constant_background, normalize
from cortexgen.atlas.plausibility import VOLUME
from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.step import Step
from cortexgen.preprocess.steps.volumes import from_xyz, to_xyz

RESIDUE, TOO_MUCH = 20.0, 0.2  # ml that are worth a look; share of an input that can't all be residue


class StripSkull(Step):
    """Take the brain out of the head with deepbet, a network whose weights come in its package.

    An input that is stripped already is noticed: a brain's volume in a constant background. It keeps its own outline,
    but what lies outside of deepbet's one (neck, orbits, dura) is removed.

    Arguments:
        stripped: whether the input is already; "auto" looks.
        margin: millimetres around deepbet's brain, a voxel at least, in which a stripped input keeps what it has.
    """

    name, tools = "strip", ("deepbet",)

    def __init__(self, stripped: Literal["auto", "yes", "no"] = "auto", margin: float = 1.0) -> None:
        if stripped not in ("auto", "yes", "no") or margin < 0:
            raise UserError(
                f"StripSkull: expected stripped auto, yes or no, and a margin from 0 on, got {stripped}, {margin:g}"
            )
        self.stripped, self.margin = stripped, margin

    def __call__(self, subject: Subject) -> None:
        image, grid = subject.image, subject.grid
        background = constant_background(image)
        given = image > (0.0 if background is None else background)
        volume = float(given.sum()) * grid.voxel_volume / 1000
        found = background is not None and VOLUME[0] <= volume <= VOLUME[1]
        brain = _deepbet(image, grid, subject.source)
        if self.stripped == "no" or (self.stripped == "auto" and not found):
            subject.measures["stripped"] = "deepbet"
            subject.keep(brain)
            return
        subject.measures["stripped"] = "given"
        image = subject.image = image - (background or 0.0)
        margin = max(self.margin, *grid.spacing)
        near = ndimage.distance_transform_edt(~brain[0].numpy(), sampling=grid.spacing) <= margin
        kept = _touching(given & torch.from_numpy(near)[None], brain)
        residue = given & ~kept & (normalize(image.clamp(min=0), subject.source) > BRAIN_FOREGROUND)
        removed = float(residue.sum()) * grid.voxel_volume / 1000
        if removed > TOO_MUCH * volume:
            subject.flags.append(f"deepbet takes {removed:.0f} of {volume:.0f} ml for no brain: nothing removed")
            kept, removed = given, 0.0
        elif removed > RESIDUE:
            subject.flags.append(f"{removed:.0f} ml outside of the brain (neck, orbits, dura) were removed")
        subject.measures["removed_ml"] = removed
        subject.keep(kept)


def _deepbet(image: Tensor, grid: Grid, source: str) -> Tensor:
    """deepbet's mask of a brain, `[1, D, H, W]` bool."""
    from deepbet import BrainExtraction

    volume = nib.Nifti1Image(to_xyz(image), np.diag([*grid.spacing[::-1], 1.0]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript, in which its weights are kept, is deprecated
            mask = BrainExtraction(no_gpu=True).run(volume)[1]
    except (AssertionError, ValueError) as error:
        raise UserError(f"{source}: deepbet found no brain in it ({error}); is it a T1w of a whole head?") from error
    return from_xyz(np.asarray(mask.dataobj)) > 0


def _touching(mask: Tensor, brain: Tensor) -> Tensor:
    """The connected parts of a mask that reach into the brain."""
    parts = torch.from_numpy(ndimage.label(mask.numpy())[0])
    return mask & torch.isin(parts, torch.unique(parts[mask & brain]))
