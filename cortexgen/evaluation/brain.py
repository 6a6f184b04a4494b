"""What label maps say of each brain, and how far a set of brains is from the real ones in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter
from torch import Tensor

from cortexgen.data.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.metrics.cortex import CORTEX, WHITE, Cortex, cortical_measures

SIDES = ("Left-", "Right-")


def intracranial_mask(image: Tensor) -> Tensor:
    """The brain and what it encloses, `[1, D, H, W]` bool: foreground with its holes filled.

    Arguments:
        image: skull-stripped, `[1, D, H, W]` in [0, 1].
    """
    return torch.from_numpy(binary_fill_holes(image[0].numpy() > BRAIN_FOREGROUND))[None]


def _world(grid: Grid, mask: Tensor) -> Tensor:
    """Mean place of a mask's voxels in mm (RAS), `[3]`."""
    middle = torch.nonzero(mask[0]).double().mean(dim=0)
    return grid.torch_affine[:3, :3] @ middle + grid.torch_affine[:3, 3]


def _left_share(grid: Grid) -> Tensor:
    """1 where a voxel's centre lies left of x = 0, 0 right of it, 1/2 on it, `[D, H, W]`."""
    d, h, w = (torch.arange(n, dtype=torch.float64) for n in grid.shape)
    row, origin = grid.torch_affine[0, :3], grid.torch_affine[0, 3]
    x = row[0] * d[:, None, None] + row[1] * h[:, None] + row[2] * w + origin
    return (1 - x.sign() * (x.abs() > 1e-3)) / 2


def _tissues(labels: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor] | None:
    """White matter and cortex, `[1, D, H, W]` bool; None if the brain lacks one."""
    bare = [name.removeprefix(SIDES[0]).removeprefix(SIDES[1]) for name in names]
    white, grey = (torch.isin(labels, torch.tensor([k for k, n in enumerate(bare) if n == t])) for t in (WHITE, CORTEX))
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
    edge = (white & binary_dilation(grey)) | (grey & binary_dilation(white))
    step = values[white].mean() - values[grey].mean()
    if not edge.any() or step == 0:
        return math.nan
    normal = np.stack(np.gradient(gaussian_filter(white.astype(np.float64), 1.0), *spacing))[:, edge]
    slope = np.stack(np.gradient(values, *spacing))[:, edge]
    along = (slope * normal).sum(axis=0) / np.maximum(np.linalg.norm(normal, axis=0), 1e-9)
    return float(along.mean() / step)


def measure_brain(image: Tensor, labels: Tensor, classes: Mapping[int, str] | None, grid: Grid) -> dict[str, Any]:
    """A brain's anatomy in numbers.

    Arguments:
        image, labels: `[1, D, H, W]`.
        classes: names of the labels; numbered unless given.

    Returns:
        `volumes` of each class by index, in ml, `[K]`; the part of each `left` of x = 0; `icv` in ml; `centroid` of
        the brain in mm (RAS), `[3]`; `cortex`, the six numbers of `Cortex`, NaN where classes don't name a cortex;
        `contrast` and `sharpness`, NaN likewise.

    Raises:
        UserError: if there is no brain in the image.
    """
    mask = intracranial_mask(image)
    if not mask.any():
        raise UserError("no voxel is brighter than air")
    size = max(int(labels.max()) + 1, max(classes or [0]) + 1)
    names = [(classes or {}).get(k, f"label-{k}") for k in range(size)]
    flat, cubic = labels.flatten(), grid.voxel_volume / 1000
    left = torch.bincount(flat, weights=_left_share(grid).flatten(), minlength=size)
    try:
        cortex = np.array(cortical_measures(labels, names, grid.spacing), dtype=np.float64)
    except UserError:
        cortex = np.full(len(Cortex._fields), np.nan)
    return {
        "volumes": torch.bincount(flat, minlength=size).double() * cubic,
        "left": left * cubic,
        "icv": float(mask.sum()) * cubic,
        "centroid": _world(grid, mask),
        "cortex": cortex,
        "contrast": contrast(image, labels, names),
        "sharpness": sharpness(image, labels, names, grid.spacing),
    }


@dataclass(frozen=True)
class Anatomy:
    """The anatomy of a set, a row a brain, float64.

    Attributes:
        index: of the brains in their store, `[N]`.
        regions: names of the K regions, without background.
        volumes: in ml, `[N, K]`.
        asymmetry: of each pair of sides, `(left - right) / (left + right)`, `[N, P]`.
        pairs: their names.
        icv: in ml, `[N]`.
        centroid: of the brain in mm (RAS), `[N, 3]`.
        cortex: `[N, 6]`, see `Cortex`.
        contrast, sharpness: `[N]`.
    """

    index: list[int]
    regions: list[str]
    volumes: Tensor
    asymmetry: Tensor
    pairs: list[str]
    icv: Tensor
    centroid: Tensor
    cortex: Tensor
    contrast: Tensor
    sharpness: Tensor


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

    def stacked(key: str, columns: Sequence[int] | None = None) -> Tensor:
        rows = [torch.as_tensor(np.atleast_1d(measured[i][key])).double() for i in index]
        if columns is not None:
            longest = max(present, default=0) + 1
            rows = [torch.nn.functional.pad(row, (0, max(0, longest - len(row))))[list(columns)] for row in rows]
        return torch.stack(rows) if rows else torch.zeros(0, len(columns or ()))

    names = [(classes or {}).get(k, f"label-{k}") for k in present]
    volumes, left = stacked("volumes", present), stacked("left", present)
    right = volumes - left
    pairs = [(name.removeprefix(SIDES[0]), k) for k, name in enumerate(names) if name.startswith(SIDES[0])]
    if pairs:  # each side has its own class
        partners = [(k, names.index(SIDES[1] + bare)) for bare, k in pairs if SIDES[1] + bare in names]
        left, right = volumes[:, [a for a, _ in partners]], volumes[:, [b for _, b in partners]]
        titles = [names[a].removeprefix(SIDES[0]) for a, _ in partners]
    else:
        titles = names
    asymmetry = (left - right) / (left + right)
    return Anatomy(
        index,
        names,
        volumes,
        asymmetry,
        titles,
        stacked("icv")[:, 0],
        stacked("centroid"),
        stacked("cortex"),
        stacked("contrast")[:, 0],
        stacked("sharpness")[:, 0],
    )


def present_classes(sets: Sequence[Mapping[int, Mapping[str, Any]]]) -> list[int]:
    """Label indices but 0 that occur in any brain of any set."""
    found: set[int] = set()
    for measured in sets:
        for brain in measured.values():
            found |= set(np.flatnonzero(brain["volumes"]).tolist())
    return sorted(found - {0})
