"""Volumes as NIfTI files."""

from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io.atomic import atomic
from cortexgen.io.grid import Grid, check_affine
from cortexgen.io.labels import check_labels

MEMORY = axcodes2ornt("SAR")


def open_image(path: Path) -> nib.Nifti1Image:
    """Open a NIfTI file without reading its voxels.

    Raises:
        UserError: if it is missing or not an image.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        return cast(nib.Nifti1Image, nib.load(path))
    except Exception as error:
        raise UserError(f"{path}: not a readable NIfTI image ({error})") from error


def voxels(image: nib.Nifti1Image, path: Path) -> np.ndarray:
    """The image's array, scaled as its header says.

    Raises:
        UserError: if the file is truncated or damaged.
    """
    try:
        return np.asanyarray(image.dataobj)
    except Exception as error:
        raise UserError(f"{path}: cannot be read to its end; is the file truncated? ({error})") from error


def _spatial(image: nib.Nifti1Image, path: Path) -> tuple[int, int, int]:
    shape = image.shape
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape[:3]) < 2:
        raise UserError(f"{path}: expected a 3D volume, found shape {' x '.join(map(str, shape))}")
    return shape[0], shape[1], shape[2]


def _to_memory(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The reorientation of a file to memory order, and the affine that results."""
    turn = ornt_transform(io_orientation(affine), MEMORY)
    return turn, affine @ inv_ornt_aff(turn, shape)


def to_memory(array: np.ndarray, affine: np.ndarray, path: Path) -> tuple[np.ndarray, Grid]:
    """Reorient an array `(X, Y, Z, ...)` of a file to (D, H, W, ...)."""
    codes = check_affine(affine, path)
    turn, turned = _to_memory(affine, array.shape[:3])
    out = np.ascontiguousarray(apply_orientation(array, turn))
    return out, Grid(out.shape[:3], turned, codes)


def to_file(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Reorient an array `(D, H, W, ...)` to the grid's file orientation; returns it and its affine."""
    turn = ornt_transform(MEMORY, axcodes2ornt(grid.codes))
    return apply_orientation(array, turn), grid.affine @ inv_ornt_aff(turn, array.shape[:3])


def read_grid(path: Path) -> Grid:
    """The grid of a volume, from its header alone.

    Raises:
        UserError: if the file is missing, no 3D image, or has no valid affine.
    """
    image = open_image(path)
    shape = _spatial(image, path)
    codes = check_affine(image.affine, path)
    turn, affine = _to_memory(image.affine, shape)
    d, h, w = (shape[int(np.where(turn[:, 0] == axis)[0][0])] for axis in range(3))
    return Grid((d, h, w), affine, codes)


def read_volume(path: Path, labels: bool = False) -> tuple[Tensor, Grid]:
    """Read a volume in memory order.

    Arguments:
        path: a NIfTI file, 3D (trailing axes of size 1 are dropped).
        labels: read whole numbers as int64 instead of float32.

    Returns:
        `[1, D, H, W]` and its grid.

    Raises:
        UserError: if the file is missing, damaged, not 3D, or holds NaNs or one constant, or (labels) is no label map.
    """
    image = open_image(path)
    array = voxels(image, path).reshape(_spatial(image, path))
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {int((~np.isfinite(array)).sum())} voxels are NaN or infinite")
    if labels:
        check_labels(array, path)
    if array.min() == array.max():
        raise UserError(f"{path}: every voxel is {array.flat[0]:g}; an image has contrast")
    array, grid = to_memory(array, image.affine, path)
    return torch.from_numpy(array.astype(np.int64 if labels else np.float32)).unsqueeze(0), grid


def write_volume(path: Path, volume: Tensor, grid: Grid, dtype: type = np.float32) -> None:
    """Write a volume `[1, D, H, W]` in its grid's file orientation, atomically.

    With `np.uint8`, values in [0, 1] of a floating tensor are stored as 0-255 with a scale factor in the header.
    """
    array = volume[0].detach().cpu().numpy()
    slope = 1 / 255 if dtype == np.uint8 and volume.is_floating_point() else None
    if slope:
        array = np.rint(np.clip(array, 0, 1) * 255)
    image = _image(array.astype(dtype), grid)
    if slope:
        image.header.set_slope_inter(slope, 0)
    with atomic(path) as temporary:
        nib.save(image, temporary)


def write_series(path: Path, volumes: Tensor, grid: Grid) -> None:
    """Write volumes on one grid as the frames of one 4D file `(X, Y, Z, N)`, one second apart, atomically.

    The file is float32, in the grid's file orientation; viewers play it like a functional series.

    Arguments:
        volumes: `[N, D, H, W]`.

    Raises:
        ValueError: if there is no frame, or their shape is not that of the grid.
    """
    if volumes.ndim != 4 or not len(volumes) or tuple(volumes.shape[1:]) != tuple(grid.shape):
        shape = ", ".join(map(str, grid.shape))
        raise ValueError(f"expected frames [N, {shape}], that of the grid, got {list(volumes.shape)}")
    image = _image(volumes.detach().cpu().float().movedim(0, -1).numpy(), grid)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    with atomic(path) as temporary:
        nib.save(image, temporary)


def _image(array: np.ndarray, grid: Grid) -> nib.Nifti1Image:
    """An image in file orientation from an array `(D, H, W, ...)` of its grid."""
    turned, affine = to_file(array, grid)
    image = nib.Nifti1Image(turned, affine)
    image.header.set_xyzt_units("mm")
    return image
