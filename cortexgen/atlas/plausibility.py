"""What is refused before a scan is preprocessed, each with one line that says what to do."""

import torch
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.io import Grid

# Measured above BRAIN_FOREGROUND: native brains 1220-1540 ml, brains scaled to the template 1870-2210 ml; a whole head
# 4150 ml.
VOLUME = (600.0, 2600.0)
LEVELS = 32  # of intensity in the foreground; a T1w of 8 bits has about 200
# Outermost slice that holds tissue, in square centimetres: brains at 1-2 mm up to 10, and up to 29 at the inferior end,
# where the brain stem leaves; at 8 mm up to 26. A head cut 10, 20, 35 mm below its vertex: 49, 93, 140.
FLAT, FLAT_INFERIOR = 20.0, 60.0
FLAT_PER_MM = 4.4  # what a sphere of 70 mm radius has more for each millimetre of slice thickness
SIDES = (("inferior", "superior"), ("posterior", "anterior"), ("left", "right"))


def check_brain(image: Tensor, grid: Grid, source: object = "image") -> None:
    """See that an image could be a whole brain without its skull; `check_alignment` then compares it with the template.

    Arguments:
        image: `[1, D, H, W]` in [0, 1], as `normalize` returns it.
        source: what to name in an error.

    Raises:
        UserError: if all voxels are alike, or the foreground has not a brain's volume, has few values, or ends in a
            plane.
    """
    if float(image.min()) == float(image.max()):
        raise UserError(f"{source}: every voxel is {float(image.min()):g}; a brain has contrast")
    tissue = image[0] > BRAIN_FOREGROUND
    volume = float(tissue.sum()) * grid.voxel_volume / 1000
    if not VOLUME[0] <= volume <= VOLUME[1]:
        expected = f"expected {VOLUME[0]:g}-{VOLUME[1]:g} ml of brain in air"
        advice = "strip the skull first, as `cortexgen preprocess` does"
        if volume < VOLUME[0]:
            advice = "is it a whole brain, and are its voxels of the size that the header says?"
        raise UserError(f"{source}: {volume:.0f} ml are brighter than air, {expected}; {advice}")
    levels = torch.unique(image[0][tissue]).numel()
    if levels < LEVELS:
        found = f"its tissue has {levels} different values, expected {LEVELS} or more"
        raise UserError(f"{source}: {found}; is it a mask or a label map instead of a T1w?")
    for axis, names in enumerate(SIDES):
        slices = tissue.movedim(axis, 0).flatten(1).sum(dim=1) * grid.voxel_volume / grid.spacing[axis] / 100
        occupied = slices[slices >= min(1.0, float(slices.max()))]  # specks don't hide a cut
        for name, area in zip(names, (float(occupied[0]), float(occupied[-1])), strict=True):
            most = (FLAT_INFERIOR if name == "inferior" else FLAT) + FLAT_PER_MM * grid.spacing[axis]
            if area > most:
                found = f"its tissue ends in a plane of {area:.0f} cm² at the {name} end, expected at most {most:.0f}"
                raise UserError(f"{source}: {found}; is the brain cut by the field of view, or not skull-stripped?")
