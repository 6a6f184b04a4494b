"""A raw scan from its file; what can't be preprocessed is refused here."""

from pathlib import Path

import numpy as np
from torch import Tensor

from cortexgen.data.plausibility import check_header
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume
from cortexgen.io.nifti import open_image

COARSEST, MOST_ANISOTROPIC = 4.0, 5.0  # millimetres; longest side of a voxel by its shortest
SHEAR = 0.01  # cosine of the angle of two axes; ITK knows right angles only


def read_scan(path: Path) -> tuple[Tensor, Grid]:
    """Read a raw T1w, `[1, D, H, W]` float32, and its grid.

    Raises:
        UserError: if the file is missing, truncated, not a 3D scalar image, without orientation, of oblique axes that
            are not at right angles, of voxels that are too large or too flat, or holds NaNs or one constant.
    """
    check_header(path)
    kind = open_image(path).get_data_dtype()
    if kind.names or kind.kind not in "iufb":
        what = "colours (RGB)" if kind.names else f"voxels of type {kind}"
        raise UserError(f"{path}: expected one number a voxel, found {what}; is it a screenshot of a scan?")
    image, grid = read_volume(path)
    check_voxels(grid, path)
    return image, grid


def check_voxels(grid: Grid, source: object) -> None:
    """See that voxels are boxes, small enough and not too flat.

    Raises:
        UserError: if not.
    """
    axes = grid.affine[:3, :3] / np.array(grid.spacing)
    cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if cosine > SHEAR:
        angle = np.degrees(np.arccos(min(1.0, cosine)))
        advice = "resample it to a grid without shear, or correct the sform"
        raise UserError(f"{source}: its axes meet at {angle:.1f} degrees, expected right angles; {advice}")
    size = " x ".join(f"{s:.3g}" for s in grid.spacing[::-1])
    if max(grid.spacing) > COARSEST or max(grid.spacing) > MOST_ANISOTROPIC * min(grid.spacing):
        expected = f"expected at most {COARSEST:g} mm, and no side {MOST_ANISOTROPIC:g} times another"
        raise UserError(f"{source}: its voxels are {size} mm, {expected}; is it a localizer or a 2D scan?")
