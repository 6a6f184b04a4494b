"""What label maps say of each brain, and how far a set of brains is from the real ones in it."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cortexgen.atlas.labels import class_numbers, classes_of
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.metrics.box import bounding_box
from cortexgen.metrics.cortex import CORTEX, WHITE, Cortex, cortical_measures
from cortexgen.spatial import present_labels

CLOSING = 6.0  # mm, over sulci
BORDER = 6  # voxels around the labels that are looked at, by Gaussians and gradients
SIDES = ("Left-", "Right-")


def intracranial_mask(labels: Tensor, spacing: Sequence[float]) -> Tensor:
    """The brain mask that a label map stands for, `[1, D, H, W]` bool: closed by 6 mm, with its holes filled.

    Taken from labels and not from intensities, it is made alike for real and synthetic brains: a threshold on images
    follows their blur, noise and contrast (at half maximum, template-like images have heads 2 SD too large).

    Arguments:
        labels: `[1, D, H, W]`, 0 is background.
        spacing: of the voxels along D, H, W in mm.
    """
    steps = max(1, round(CLOSING / min(spacing)))
    padded = np.pad(labels[0].numpy() > 0, steps + 1)
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(padded, iterations=steps))
    inner = slice(steps + 1, -steps - 1)
    return torch.from_numpy(np.ascontiguousarray(closed[inner, inner, inner]))[None]


def _world(grid: Grid, mask: Tensor) -> Tensor:
    """Mean place of a mask's voxels in mm (RAS), `[3]`."""
    middle = torch.nonzero(mask[0]).double().mean(dim=0)
    return grid.torch_affine[:3, :3] @ middle + grid.torch_affine[:3, 3]


def _left_share(grid: Grid, middle: float) -> Tensor:
    """Share of each voxel that lies left of `x = middle` (mm), `[D, H, W]`."""
    d, h, w = (torch.arange(n, dtype=torch.float64) for n in grid.shape)
    row, origin = grid.torch_affine[0, :3], grid.torch_affine[0, 3]
    x = row[0] * d[:, None, None] + row[1] * h[:, None] + row[2] * w + origin
    return ((middle - x) / row.abs().sum() + 0.5).clamp(0, 1)


def noise_level(image: Tensor, mask: Tensor) -> float:
    """Noise inside the brain, without labels: the robust SD of what is left by [1 -2 1] along every axis.

    (Immerkær, CVIU 1996, in three dimensions: smooth anatomy cancels.) Noise raises it, blur lowers it.

    Arguments:
        image, mask: `[1, D, H, W]`.
    """
    residual = image[0].double().numpy()
    for axis in range(3):
        residual = ndimage.convolve1d(residual, [1.0, -2.0, 1.0], axis=axis)
    inside = ndimage.binary_erosion(mask[0].numpy(), iterations=3)
    return 1.4826 * float(np.median(np.abs(residual[inside]))) / 6**1.5 if inside.any() else math.nan


def _tissues(labels: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """White matter and cortex, `[1, D, H, W]` bool; None if the brain lacks one."""
    bare = [name.removeprefix(SIDES[0]).removeprefix(SIDES[1]) for name in names]
    white, grey = (torch.tensor([n == tissue for n in bare])[labels] for tissue in (WHITE, CORTEX))
    return (white, grey) if min(int(white.sum()), int(grey.sum())) > 1 else None


def contrast(image: Tensor, labels: Tensor, names: Sequence[str]) -> float:
    """Contrast to noise of white matter and cortex, `|m_w - m_c| / sqrt(s_w² + s_c²)` (as MRIQC's CNR); NaN without.

    Noise lowers it.

    Arguments:
        image, labels: `[1, D, H, W]`.
        names: of the classes by index.
    """
    tissues = _tissues(labels, names)
    if tissues is None:
        return math.nan
    white, grey = (image[tissue].double() for tissue in tissues)
    return float((white.mean() - grey.mean()).abs() / (white.var() + grey.var()).sqrt())


def _gradient(values: np.ndarray, places: tuple[np.ndarray, ...], spacing: Sequence[float]) -> np.ndarray:
    """What `np.gradient` gives at some voxels, `[3, N]`."""
    out = []
    for axis, (at, step) in enumerate(zip(places, spacing, strict=True)):
        low, high = np.maximum(at - 1, 0), np.minimum(at + 1, values.shape[axis] - 1)
        before, after = ((*places[:axis], i, *places[axis + 1 :]) for i in (low, high))
        out.append((values[after] - values[before]) / ((high - low) * step))
    return np.stack(out)


def sharpness(image: Tensor, labels: Tensor, names: Sequence[str], spacing: Sequence[float]) -> float:
    """How steeply intensity rises across the boundary of cortex and white matter, per mm; NaN without.

    The mean slope along the labels' normal over voxels on either side of the boundary, over the difference of the two
    tissues' means: the reciprocal of the width of the edge. Blur lowers it, noise averages out.

    Arguments:
        image, labels: `[1, D, H, W]`.
        names: of the classes by index.
        spacing: of the voxels along D, H, W in mm.
    """
    tissues = _tissues(labels, names)
    if tissues is None:
        return math.nan
    values = image[0].double().numpy()
    white, grey = (tissue[0].numpy() for tissue in tissues)
    edge = (white & ndimage.binary_dilation(grey)) | (grey & ndimage.binary_dilation(white))
    step = values[white].mean() - values[grey].mean()
    if not edge.any() or step == 0:
        return math.nan
    places = np.nonzero(edge)
    normal = _gradient(ndimage.gaussian_filter(white.astype(np.float64), 1.0), places, spacing)
    slope = _gradient(values, places, spacing)
    along = (slope * normal).sum(axis=0) / np.maximum(np.linalg.norm(normal, axis=0), 1e-9)
    return float(along.mean() / step)


def named_classes(labels: Tensor, classes: Mapping[int, str] | None) -> tuple[list[int], Tensor, list[str]]:
    """Numbers of the classes, labels `[1, D, H, W]` as indices of them, and their names, "label-9" where 9 has none."""
    numbers = class_numbers([*present_labels(labels).tolist(), *(classes or {})])
    return numbers, classes_of(labels, numbers), [(classes or {}).get(k, f"label-{k}") for k in numbers]


def _around(image: Tensor, labels: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Grid]:
    """The part of a volume that its labels and a border lie in: what is measured depends on nothing beyond."""
    first, last = bounding_box(labels != 0) or ([0, 0, 0], [n - 1 for n in grid.shape])
    low = [max(0, i - BORDER) for i in first]
    high = [min(n - 1, i + BORDER) for i, n in zip(last, grid.shape, strict=True)]
    part = (slice(None), *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))
    return image[part], labels[part], grid.box(low, high)


def measure_brain(image: Tensor, labels: Tensor, classes: Mapping[int, str] | None, grid: Grid) -> dict[str, Any]:
    """A brain's anatomy in numbers.

    Arguments:
        image, labels: `[1, D, H, W]`.
        classes: names of the labels; numbered unless given.

    Returns:
        What `Anatomy` holds of a brain, its classes' `numbers`, `[K]`, and the part of the volume of each that lies
        `left` of the middle of all labels; `cortex`, contrast and sharpness are NaN where classes don't name a cortex.

    Raises:
        UserError: if there are no labels.
    """
    if not labels.any():
        raise UserError("its label map is empty")
    image, labels, grid = _around(image, labels, grid)
    mask = intracranial_mask(labels, grid.spacing)
    numbers, labels, names = named_classes(labels, classes)
    size = len(numbers)
    flat, cubic = labels.flatten(), grid.voxel_volume / 1000
    middle = float(_world(grid, labels > 0)[0])
    left = torch.bincount(flat, weights=_left_share(grid, middle).flatten(), minlength=size)
    cortex = np.full(len(Cortex._fields), np.nan)
    with suppress(UserError):
        cortex[:] = cortical_measures(labels, names, grid.spacing)
    return {
        "numbers": np.array(numbers),
        "volumes": torch.bincount(flat, minlength=size).double() * cubic,
        "left": left * cubic,
        "icv": float(mask.sum()) * cubic,
        "centroid": _world(grid, mask),
        "cortex": cortex,
        "image": [
            contrast(image, labels, names),
            sharpness(image, labels, names, grid.spacing),
            noise_level(image, mask),
        ],
    }


@dataclass(frozen=True)
class Anatomy:
    """The anatomy of a set, a row a brain, float64.

    Attributes:
        index: of the brains in their store, `[N]`.
        regions: names of the K regions, without background.
        volumes: in ml, `[N, K]`.
        asymmetry: of each pair of sides, `(left - right) / (left + right)`, `[N, P]`.
        icv: in ml, `[N]`.
        centroid: of the brain in mm (RAS), `[N, 3]`.
        cortex: `[N, 6]`, see `Cortex`.
        image: contrast, sharpness and noise, `[N, 3]`.
    """

    index: list[int]
    regions: list[str]
    volumes: Tensor
    asymmetry: Tensor
    icv: Tensor
    centroid: Tensor
    cortex: Tensor
    image: Tensor


def collect(
    measured: Mapping[int, Mapping[str, Any]], classes: Mapping[int, str] | None, present: Sequence[int]
) -> Anatomy:
    """The anatomy of a set from `measure_brain` of each.

    Arguments:
        measured: by index.
        classes: names of the labels.
        present: label indices to take: those that occur in any set of the comparison, without background.
    """
    index = sorted(measured)

    def stacked(key: str) -> Tensor:
        return torch.stack([torch.as_tensor(measured[i][key]).double() for i in index])

    def of_classes(key: str) -> Tensor:
        rows = [dict(zip(measured[i]["numbers"].tolist(), measured[i][key], strict=True)) for i in index]
        return torch.tensor([[float(row.get(k, 0)) for k in present] for row in rows], dtype=torch.float64)

    names = [(classes or {}).get(k, f"label-{k}") for k in present]
    volumes, left = of_classes("volumes"), of_classes("left")
    right = volumes - left
    partners = {k: SIDES[1] + name.removeprefix(SIDES[0]) for k, name in enumerate(names) if name.startswith(SIDES[0])}
    if partners:  # each side has its own class
        both = [(k, names.index(name)) for k, name in partners.items() if name in names]
        left, right = (volumes[:, [pair[side] for pair in both]] for side in (0, 1))
    asymmetry = (left - right) / (left + right)
    return Anatomy(index, names, volumes, asymmetry, *map(stacked, ("icv", "centroid", "cortex", "image")))


def present_classes(measured: Mapping[int, Mapping[str, Any]]) -> list[int]:
    """Label indices but 0 that occur in any brain of a set."""
    found = {k for brain in measured.values() for k in brain["numbers"][np.asarray(brain["volumes"]) > 0].tolist()}
    return sorted(found - {0})
