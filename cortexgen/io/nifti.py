"""Volumes as NIfTI files."""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import SerializableImage
from nibabel.imageglobals import logger
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io.compressed import save_image
from cortexgen.io.grid import Grid
from cortexgen.io.header import NO_CHOICE, HeaderChoice, apart, file_affine
from cortexgen.io.labels import check_labels

MEMORY = axcodes2ornt("SAR")
GZIP = b"\x1f\x8b"
ROUNDING = 1e-2  # millimetres, as `Grid.matches` has it
DEFLATED = 1032  # bytes that gzip makes of one, at the most
LARGEST = float(np.finfo(np.float32).max) / 1e6  # of an image


def open_image(path: Path) -> nib.Nifti1Image:
    """Open an image without reading its voxels.

    Raises:
        UserError: if it is missing, no image, smaller than its header says, or has not one real number a voxel.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, expected an image' if path.is_dir() else 'no such file'}")
    try:
        start = _start(path)
        with _silent():
            image = cast(nib.Nifti1Image, nib.load(path))
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        raise _unreadable(path, start, error) from error
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise UserError(f"{path}: expected a volume, found a {type(image).__name__}")
    kind = image.get_data_dtype()
    if kind.names or kind.kind not in "iufb":
        what = "colours (RGB); is it a screenshot of a scan?" if kind.names else f"voxels of type {kind}"
        what += "; take the magnitude" * (kind.kind == "c")
        raise UserError(f"{path}: expected one number a voxel, found {what}")
    _check_size(image, path)
    return image


@contextmanager
def _silent() -> Iterator[None]:
    """Without what nibabel logs of headers, which errors say too."""
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(2)


def _unreadable(path: Path, start: bytes, error: Exception) -> UserError:
    compressed, named = start == GZIP, path.name.lower().endswith(".gz")
    reason = " ".join(str(error).split())
    if not start:
        reason = "it is empty"
    elif compressed and path.name.lower().endswith(".nii"):
        reason = "it is compressed by gzip: rename it to .nii.gz"
    elif named and not compressed:
        reason = "its name says that it is compressed by gzip, which it is not: is it a .nii?"
    return UserError(f"{path}: not a readable NIfTI image ({reason})")


def _check_size(image: nib.Nifti1Image, path: Path) -> None:
    """See that the file can hold what its header promises, before anything of that size is allocated."""
    proxy, holder = image.dataobj, image.file_map.get("image")
    if not isinstance(proxy, nib.arrayproxy.ArrayProxy) or holder is None or holder.filename is None:
        return
    file = Path(holder.filename)
    if not file.is_file():
        raise UserError(f"{path}: its voxels should be in {file.name}, which isn't there")
    expected = proxy.offset + math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize
    size = file.stat().st_size
    if expected > size * (DEFLATED if _start(file) == GZIP else 1):
        shape = " x ".join(map(str, proxy.shape))
        found = f"its header promises {shape} voxels, {expected} bytes, in a file of {size}"
        raise UserError(f"{path}: {found}; is it truncated?")


def _read_out(stream: gzip.GzipFile) -> None:
    """Go to the end, where the check sum is; what some programs leave after it is ignored."""
    try:
        while stream.read(1 << 20):
            pass
    except gzip.BadGzipFile as error:
        if "Not a gzipped file" not in str(error):
            raise


def voxels(image: nib.Nifti1Image, path: Path) -> np.ndarray:
    """The image's array, scaled as its header says.

    Raises:
        UserError: if the file is truncated or damaged.
    """
    try:
        if isinstance(image, SerializableImage) and _start(path) == GZIP:
            with gzip.open(path) as stream, _silent():
                array = np.asanyarray(type(image).from_stream(stream).dataobj)
                _read_out(stream)
            return array
        return np.asanyarray(image.dataobj)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read to its end; is the file truncated or damaged? ({reason})") from error


def _spatial(image: nib.Nifti1Image, path: Path) -> tuple[int, int, int]:
    shape = image.shape
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape[:3]) < 2:
        raise UserError(f"{path}: expected a 3D volume, found shape {' x '.join(map(str, shape))}")
    return shape[0], shape[1], shape[2]


def to_memory(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, Grid]:
    """Reorient an array `(X, Y, Z, ...)` of a file to (D, H, W, ...)."""
    turn = ornt_transform(io_orientation(affine), MEMORY)
    out = np.ascontiguousarray(apply_orientation(array, turn))
    return out, Grid(out.shape[:3], affine @ inv_ornt_aff(turn, array.shape[:3]), "".join(nib.aff2axcodes(affine)))


def to_file(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Reorient an array `(D, H, W, ...)` to the grid's file orientation; returns it and its affine."""
    turn = ornt_transform(MEMORY, axcodes2ornt(grid.codes))
    return apply_orientation(array, turn), grid.affine @ inv_ornt_aff(turn, array.shape[:3])


def read_grid(path: Path, choice: HeaderChoice = NO_CHOICE) -> Grid:
    """The grid of a volume, from its header alone.

    Arguments:
        choice: what decides where headers leave a choice.

    Raises:
        UserError: if the file is missing, no 3D image, or its header is not to be trusted (see `file_affine`).
    """
    image = open_image(path)
    return to_memory(np.empty(_spatial(image, path), np.int8), file_affine(image, path, choice))[1]


def read_volume(path: Path, labels: bool = False, choice: HeaderChoice = NO_CHOICE) -> tuple[Tensor, Grid]:
    """Read a volume in memory order.

    Arguments:
        path: an image file, 3D (trailing axes of size 1 are dropped).
        labels: read whole numbers as int64 instead of float32.
        choice: what decides where headers leave a choice.

    Returns:
        `[1, D, H, W]` and its grid.

    Raises:
        UserError: if the file is missing, damaged, not 3D, has not one real number a voxel, or holds NaNs, one
            constant or numbers that are too large, or (labels) is no label map; or its header is not to be trusted (see
            `file_affine`).
    """
    image = open_image(path)
    shape = _spatial(image, path)
    affine = file_affine(image, path, choice)
    array = voxels(image, path).reshape(shape)
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {int((~np.isfinite(array)).sum())} voxels are NaN or infinite")
    if labels:
        check_labels(array, path)
    low, high = array.min(), array.max()
    if low == high:
        raise UserError(f"{path}: every voxel is {low:g}; an image has contrast")
    if not labels and max(abs(float(low)), abs(float(high))) > LARGEST:
        raise UserError(f"{path}: values from {low:.3g} to {high:.3g}, expected at most {LARGEST:.3g}")
    array, grid = to_memory(array, affine)
    return torch.from_numpy(array.astype(np.int64 if labels else np.float32)).unsqueeze(0), grid


def write_volume(path: Path, volume: Tensor, grid: Grid, dtype: type = np.float32) -> None:
    """Write a volume `[1, D, H, W]` in its grid's file orientation, atomically.

    With `np.uint8`, values in [0, 1] of a floating tensor are stored as 0-255 with a scale factor in the header.
    """
    array = volume[0].detach().cpu().numpy()
    slope = 1 / 255 if dtype == np.uint8 and volume.is_floating_point() else None
    if slope:
        array = np.rint(np.clip(array, 0, 1) * 255)
    image = nifti(*to_file(array.astype(dtype), grid))
    if slope:
        image.header.set_slope_inter(slope, 0)
    save_image(image, path)


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
    image = nifti(*to_file(volumes.detach().cpu().float().movedim(0, -1).numpy(), grid))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], 1.0))
    save_image(image, path)


def nifti(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """An image whose sform is an affine, with the code that makes ITK take it, and whose qform is the same.

    There is no qform where its quaternion, rounded to float32, would be off, as it is near half turns.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    if apart(image.get_qform(), affine, array.shape[:3]) > ROUNDING:
        image.set_qform(None, 0)
    image.header.set_xyzt_units("mm")
    return image
