"""Fields and affines as ITK reads them.

A field is float32 `(X, Y, Z, 1, 3)`, intent "vector", LPS millimetres.
A displacement written on the fixed image's grid is what `antsApplyTransforms -t` and SimpleITK's
DisplacementFieldTransform take: a fixed point in, the moving point out, like the pull-back in memory. A velocity has
the same layout.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io.atomic import write_text
from cortexgen.io.compressed import save_image
from cortexgen.io.grid import Grid
from cortexgen.io.header import file_affine
from cortexgen.io.nifti import nifti, open_image, to_file, to_memory, voxels
from cortexgen.spatial import turned

LPS = np.diag([-1.0, -1.0, 1.0])
STEP = 2.0**-10  # mm, of displacements that are written; half of it is the most that they are off


def in_steps(field: Tensor, grid: Grid, step: float = STEP) -> Tensor:
    """A field `[1, 3, D, H, W]` as `write_field` with this step writes it."""
    return turned(_steps(field, grid, step), torch.linalg.inv(_turn(grid)) * step)


def _turn(grid: Grid) -> Tensor:
    """Voxels to LPS millimetres, of vectors."""
    return torch.from_numpy(LPS @ grid.affine[:3, :3])


def _steps(field: Tensor, grid: Grid, step: float) -> Tensor:
    """How many steps a field `[1, 3, D, H, W]` goes along each axis of the world."""
    return turned(field.float(), _turn(grid) / step).round_()


def write_field(path: Path, field: Tensor, grid: Grid, step: float = 0.0) -> None:
    """Write a displacement or velocity `[3, D, H, W]`, in voxels of `grid`, atomically.

    Arguments:
        step: multiples of it, in millimetres, are written, which compress well; a power of two. 0 keeps every digit.
    """
    field = field.detach().cpu()[None]
    vectors = _steps(field, grid, step).mul_(step) if step else turned(field.double(), _turn(grid))
    array, affine = to_file(vectors[0].float().movedim(0, -1).numpy(), grid)
    image = nifti(array[:, :, :, None, :], affine)
    image.header.set_intent("vector")
    save_image(image, path)


def _open_field(path: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """A field's file and affine."""
    image = open_image(path)
    if len(image.shape) != 5 or image.shape[3:] != (1, 3):
        shape = " x ".join(map(str, image.shape))
        raise UserError(f"{path}: expected a displacement field of shape X x Y x Z x 1 x 3, found {shape}")
    return image, file_affine(image, path)


def read_field_grid(path: Path) -> Grid:
    """The grid of an ITK displacement or velocity, from its header alone.

    Raises:
        UserError: if the file is missing or not a 3D vector field.
    """
    image, affine = _open_field(path)
    return to_memory(np.empty(image.shape[:3], np.int8), affine)[1]


def read_field(path: Path) -> tuple[Tensor, Grid]:
    """Read an ITK displacement or velocity, ours or that of ANTs.

    Returns:
        `[3, D, H, W]` in voxels of its grid, float32, and the grid.

    Raises:
        UserError: if the file is missing, damaged, not a 3D vector field, or its header is not to be trusted (see
            `file_affine`).
    """
    image, affine = _open_field(path)
    array, grid = to_memory(voxels(image, path)[:, :, :, 0, :].astype(np.float64), affine)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: the field holds NaN or infinite values")
    turn = np.linalg.inv(grid.affine[:3, :3]) @ LPS
    return torch.from_numpy(np.einsum("ij,dhwj->idhw", turn, array).astype(np.float32)), grid


def write_affine(path: Path, affine: np.ndarray) -> None:
    """Write an affine between worlds (RAS mm, 4x4) as ITK's text file, atomically.

    With an affine from template to image points, `antsApplyTransforms -i image -r template -t path` brings the image
    to the template.
    """
    parameters = [*(LPS @ affine[:3, :3] @ LPS).ravel(), *(LPS @ affine[:3, 3])]
    lines = [
        "#Insight Transform File V1.0",
        "#Transform 0",
        "Transform: AffineTransform_double_3_3",
        "Parameters: " + " ".join(repr(float(p)) for p in parameters),
        "FixedParameters: 0 0 0",
    ]
    write_text(path, "\n".join(lines) + "\n")
