"""Sampling a volume at displaced positions."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["border", "zeros"]
Interpolation = Literal["linear", "nearest"]
CHUNK = 2**18  # places whose neighbours are looked at together


def identity(shape: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """Voxel positions of a grid, `[1, 3, D, H, W]`, channels in axis order."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).unsqueeze(0)


def sample(volume: Tensor, positions: Tensor, mode: Interpolation = "linear", padding: Padding = "border") -> Tensor:
    """Values of `volume` at voxel positions.

    Arguments:
        volume: `[B, C, D, H, W]`.
        positions: `[B, 3, d, h, w]` in voxels of `volume` (axis order), with a batch of 1 or B.
        mode: trilinear, or the nearest voxel.
        padding: outside the grid, the value at its border, or zero.

    Returns:
        `[B, C, d, h, w]`, in the type of `volume` (float32 for integers in linear mode).

    Raises:
        ValueError: if the number of axes or channels is wrong.
    """
    if volume.ndim != 5 or positions.ndim != 5 or positions.shape[1] != 3:
        raise ValueError(
            f"expected a volume [B, C, D, H, W] and positions [B, 3, d, h, w], "
            f"got {tuple(volume.shape)} and {tuple(positions.shape)}"
        )
    places = [  # from -1 to 1, W first; an axis at a time, as one pass each over the memory takes least
        torch.add(p.new_full((), -1.0), p, alpha=2 / (n - 1)) if n > 1 else torch.zeros_like(p)
        for p, n in zip(positions.float().unbind(dim=1), volume.shape[2:], strict=True)
    ]
    grid = torch.stack(places[::-1], dim=1).movedim(1, -1).expand(volume.shape[0], -1, -1, -1, -1)
    kind = "bilinear" if mode == "linear" else "nearest"
    out = F.grid_sample(volume.float(), grid, kind, padding, align_corners=True)
    return out.to(volume.dtype) if volume.is_floating_point() or mode == "nearest" else out


def warp(moving: Tensor, displacement: Tensor, mode: Interpolation = "linear", padding: Padding = "border") -> Tensor:
    """Pull `moving` back: `warped(p) = moving(p + u(p))`.

    Arguments:
        moving: `[B, C, D, H, W]`.
        displacement: u, `[B, 3, D, H, W]` in voxels of the same grid.

    Returns:
        `[B, C, D, H, W]`.
    """
    return sample(moving, identity(displacement.shape[2:], displacement.device) + displacement, mode, padding)


def warp_labels(labels: Tensor, positions: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Warp a label map softly: each class's indicator is interpolated, the largest one wins (of two the smaller class).

    One pass over the voxels near a class other than 0, each with the labels of its eight neighbours: time and memory
    don't depend on the number of classes.

    Arguments:
        labels: `[B, 1, D, H, W]`, integers in `[0, classes)`.
        positions: `[B, 3, d, h, w]` in voxels of `labels`.

    Returns:
        The winning classes `[B, 1, d, h, w]`, int64, and each class's summed probability `[B, classes]` in voxels
        of the output grid.
    """
    winner = torch.zeros(labels.shape[0], 1, *positions.shape[2:], dtype=torch.int64, device=labels.device)
    sums = torch.zeros(labels.shape[0], classes, dtype=torch.float64, device=labels.device)
    for b, (volume, place) in enumerate(zip(labels, positions.expand(len(labels), -1, -1, -1, -1), strict=True)):
        near = sample((volume > 0).float()[None], place[None])[0, 0] > 0
        found = []
        for part in place[:, near].split(CHUNK, dim=1):
            corners, weights = _corners(volume[0].long(), part)
            found.append(_likeliest(corners, weights))
            sums[b] += torch.bincount(corners.flatten(), weights.flatten().double(), classes)
        if found:
            winner[b, 0][near] = torch.cat(found)
        sums[b, 0] += (~near).sum()
    return winner, sums


def _corners(volume: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the voxels around places `[3, n]` of a volume `[D, H, W]`, and trilinear weights, both `[8, n]`."""
    last = torch.tensor(volume.shape, device=places.device)[:, None] - 1
    places = torch.minimum(places.float().clamp(min=0), last)
    low = places.floor().long()
    high, part = torch.minimum(low + 1, last), places - low
    index, weights = [], []
    for corner in itertools.product((0, 1), repeat=3):
        d, h, w = (high[axis] if side else low[axis] for axis, side in enumerate(corner))
        index.append((d * volume.shape[1] + h) * volume.shape[2] + w)
        a, b, c = (part[axis] if side else 1 - part[axis] for axis, side in enumerate(corner))
        weights.append(a * b * c)
    return volume.reshape(-1)[torch.stack(index)], torch.stack(weights)


def _likeliest(corners: Tensor, weights: Tensor) -> Tensor:
    """The label of the largest summed weight among eight, `[8, n]` each; the smallest of several."""
    found = corners[0].clone()
    mixed = (corners != found).any(dim=0)  # few
    corners, weights = corners[:, mixed], weights[:, mixed]
    best, winner = torch.full_like(weights[0], -1), torch.zeros_like(corners[0])
    for label in corners:
        total = (weights * (corners == label)).sum(dim=0)
        better = (total > best) | ((total == best) & (label < winner))
        best, winner = torch.where(better, total, best), torch.where(better, label, winner)
    found[mixed] = winner
    return found


def mirrored(field: Tensor) -> Tensor:
    """A field `[B, 3, D, H, W]` reflected left-right, `v'(p) = F v(F p)`: W reversed, its component negated."""
    return field.flip(-1) * torch.tensor([1.0, 1.0, -1.0], device=field.device).view(1, 3, 1, 1, 1)
