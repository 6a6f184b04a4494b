"""A raw scan from its file; what can't be preprocessed is refused here."""

from pathlib import Path

from torch import Tensor

from cortexgen.atlas.intensity import constant_background
from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.header import NO_CHOICE

COARSEST, MOST_ANISOTROPIC = 4.0, 5.0  # millimetres; longest side of a voxel by its shortest


def read_scan(path: Path, choice: HeaderChoice = NO_CHOICE) -> tuple[Tensor, Grid]:
    """Read a raw T1w, `[1, D, H, W]` float32, and its grid; a constant background becomes zero.

    Arguments:
        choice: what decides where headers leave a choice.

    Raises:
        UserError: as `read_volume`; or if voxels are too large or too flat.
    """
    image, grid = read_volume(path, choice=choice)
    if max(grid.spacing) > min(COARSEST, MOST_ANISOTROPIC * min(grid.spacing)):
        size = " x ".join(f"{s:.3g}" for s in grid.spacing[::-1])
        expected = f"expected at most {COARSEST:g} mm, and no side {MOST_ANISOTROPIC:g} times another"
        raise UserError(f"{path}: its voxels are {size} mm, {expected}; is it a localizer or a 2D scan?")
    return image - (constant_background(image) or 0.0), grid
