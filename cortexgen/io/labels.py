"""What tells a label map from an image, and how its numbers are kept."""

from pathlib import Path

import numpy as np

from cortexgen.errors import UserError

LARGEST = 2**32 - 1  # what uint32 holds, the widest type that programs read
FEW = 100  # different numbers that any volume may have
PIECEWISE = 0.2  # share of neighbours with one number: below 0.1 in T1w of 8 bits, above 0.24 with 1000 parcels of 8 mm


def check_labels(array: np.ndarray, path: Path) -> None:
    """See that an array `(X, Y, Z)` without NaNs is a label map.

    Raises:
        UserError: if it is empty, holds fractions or numbers that are too large, or varies as an image does.
    """
    low, high = array.min(), array.max()
    if low == high:
        raise UserError(f"{path}: every voxel is {array.flat[0]:g}; a label map has labels and background")
    if array.dtype.kind not in "iub" and not np.array_equal(array, np.rint(array)):
        raise UserError(f"{path}: expected whole numbers in a label map, found fractions")
    if high > LARGEST or low < -LARGEST:
        raise UserError(f"{path}: found label {high if high > LARGEST else low:.15g}, expected 0 to {LARGEST}")
    values = np.unique(array)
    if len(values) > FEW and _constancy(array) < PIECEWISE:
        raise UserError(
            f"{path}: {len(values)} different values from {low:.0f} to {high:.0f}, and neighbours seldom have the same "
            "one: this is an image, expected a label map"
        )


def label_type(largest: int) -> type:
    """The smallest type of NIfTI files that holds labels from 0 to `largest`."""
    kinds: tuple[type, ...] = (np.uint8, np.int16, np.int32)
    return next((kind for kind in kinds if largest <= np.iinfo(kind).max), np.uint32)


def _constancy(array: np.ndarray) -> float:
    """Share of the pairs of neighbours, none of them 0, that have one value."""
    same = pairs = 0
    for axis in range(3):
        a, b = (np.moveaxis(array, axis, 0)[part] for part in (slice(1, None), slice(-1)))
        inside = (a != 0) & (b != 0)
        pairs += int(inside.sum())
        same += int((inside & (a == b)).sum())
    return same / pairs if pairs else 1.0
