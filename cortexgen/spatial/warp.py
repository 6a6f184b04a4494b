"""Sampling a volume at displaced positions."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = Literal["border", "zeros"]
Interpolation = Literal["linear", "nearest"]


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
    size = torch.tensor(volume.shape[2:], dtype=torch.float32, device=volume.device)
    scale = 2 / (size - 1).clamp(min=1)
    grid = positions.float().movedim(1, -1) * scale - 1
    grid = torch.where(size > 1, grid, torch.zeros_like(grid)).flip(-1)
    grid = grid.expand(volume.shape[0], -1, -1, -1, -1)
    out = F.grid_sample(
        volume.float(),
        grid,
        mode="bilinear" if mode == "linear" else "nearest",
        padding_mode=padding,
        align_corners=True,
    )
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
    """Warp a label map softly: each class's indicator is interpolated, the largest one wins.

    Only voxels near a class other than 0 are looked at, one class at a time: time and memory of a few volumes.

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
        there = place[:, near][None, :, :, None, None]
        background = sample((volume == 0).float()[None], there)[0, 0, :, 0, 0]
        best, found = background, torch.zeros(len(background), dtype=torch.int64, device=labels.device)
        for k in range(1, classes):
            probability = sample((volume == k).float()[None], there)[0, 0, :, 0, 0]
            sums[b, k] = probability.sum(dtype=torch.float64)
            better = probability > best
            found[better] = k
            best = torch.maximum(best, probability)
        winner[b, 0][near] = found
        sums[b, 0] = background.sum(dtype=torch.float64) + (~near).sum()
    return winner, sums


def mirrored(field: Tensor) -> Tensor:
    """A field `[B, 3, D, H, W]` reflected left-right, `v'(p) = F v(F p)`: W reversed, its component negated."""
    return field.flip(-1) * torch.tensor([1.0, 1.0, -1.0], device=field.device).view(1, 3, 1, 1, 1)
