"""Where the voxels of a volume lie."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nibabel.affines import voxel_sizes

from cortexgen.errors import UserError

VOXEL_BYTES = 100  # that work on a volume takes: image, labels, a field both ways and what is made of them


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid in memory: axes (D, H, W) run to Superior, Anterior, Right.

    Attributes:
        shape: number of voxels along D, H, W.
        affine: 4x4, voxel index (D, H, W) to world millimetres (RAS).
        codes: orientation of the file that the grid came from, and is written in.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    codes: str = "RAS"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along D, H, W in millimetres."""
        d, h, w = voxel_sizes(self.affine)
        return float(d), float(h), float(w)

    @property
    def voxel_volume(self) -> float:
        """In cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def torch_affine(self) -> torch.Tensor:
        """The affine as float64 tensor `[4, 4]`."""
        return torch.from_numpy(np.asarray(self.affine, dtype=np.float64))

    def __str__(self) -> str:
        spacing = " x ".join(f"{s:g}" for s in np.round(self.spacing, 4))
        origin = ", ".join(f"{o:g}" for o in np.round(self.affine[:3, 3], 3))
        size = " x ".join(map(str, self.shape))
        return f"{size} voxels (D x H x W) of {spacing} mm, first voxel at ({origin})"

    def matches(self, other: "Grid", tolerance: float = 1e-2) -> bool:
        """Same shape, and corners at the same place to `tolerance` millimetres."""
        if tuple(self.shape) != tuple(other.shape):
            return False
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in self.shape], indexing="ij")).reshape(3, -1)
        moved = (self.affine - other.affine) @ np.vstack([corners, np.ones(8)])
        return bool(np.abs(moved).max() < tolerance)

    def coarse(self, factor: int) -> "Grid":
        """The grid of every `factor`-th voxel, the first included."""
        d, h, w = (-(-n // factor) for n in self.shape)
        return Grid((d, h, w), self.affine @ np.diag([factor] * 3 + [1.0]), self.codes)

    def fine(self, factor: int) -> "Grid":
        """The grid of which this is every `factor`-th voxel, the first and the last included."""
        d, h, w = ((n - 1) * factor + 1 for n in self.shape)
        return Grid((d, h, w), self.affine @ np.diag([1 / factor] * 3 + [1.0]), self.codes)

    def at_spacing(self, spacing: float, shape: Sequence[int] | None = None) -> "Grid":
        """An isotropic grid of the same centre, axes and orientation.

        Arguments:
            shape: D, H, W; an odd number of voxels a side that covers the same box unless given.

        Raises:
            UserError: if the spacing is not above zero or larger than the whole grid, or the grid too large for this
                machine's memory.
        """
        if not 0 < spacing < float("inf"):
            raise UserError(f"spacing: expected millimetres above zero, got {spacing:g}")
        extent = max(n * s for n, s in zip(self.shape, self.spacing, strict=True))
        if spacing > extent:
            raise UserError(f"spacing: voxels of {spacing:g} mm would be larger than the whole grid, {extent:g} mm")
        steps = np.array(self.spacing) / spacing
        if shape is None:
            halves = [(n - 1) / 2 * s for n, s in zip(self.shape, steps, strict=True)]
            shape = [2 * int(np.ceil(np.round(half, 3))) + 1 for half in halves]
        needed, there = math.prod(map(int, shape)) * VOXEL_BYTES / 1e9, memory() / 1e9
        if needed > there:
            size = f"voxels of {spacing:g} mm: {' x '.join(map(str, shape))} voxels"
            raise UserError(f"spacing: {size} need about {needed:,.0f} GB of memory, this machine has {there:,.0f}")
        affine = self.affine @ np.diag([*(1 / steps), 1.0])
        centre = self.affine @ np.array([*((np.array(self.shape) - 1) / 2), 1.0])
        affine[:3, 3] = (centre - affine @ np.array([*((np.array(shape) - 1) / 2), 0.0]))[:3]
        return Grid((shape[0], shape[1], shape[2]), affine, self.codes)

    def window(self, shape: Sequence[int]) -> "Grid":
        """The central part of `shape`, beyond the grid where it is smaller."""
        low = [(n - m) // 2 for n, m in zip(self.shape, shape, strict=True)]
        return self.box(low, [a + m - 1 for a, m in zip(low, shape, strict=True)])

    def box(self, low: Sequence[int], high: Sequence[int]) -> "Grid":
        """The voxels from `low` to `high`, both included."""
        affine = self.affine.copy()
        affine[:3, 3] = (self.affine @ np.array([*low, 1.0]))[:3]
        d, h, w = (b - a + 1 for a, b in zip(low, high, strict=True))
        return Grid((d, h, w), affine, self.codes)

    def is_symmetric(self, tolerance: float = 1e-2) -> bool:
        """Whether reflecting world x about 0 maps voxels to voxels, by reversing the W axis."""
        flip = np.diag([1.0, 1, -1, 1])
        flip[2, 3] = self.shape[2] - 1
        mirrored = Grid(self.shape, np.diag([-1.0, 1, 1, 1]) @ self.affine @ flip)
        return self.matches(mirrored, tolerance)

    def to_dict(self) -> dict[str, object]:
        """Plain types, for JSON and checkpoints."""
        return {"shape": list(self.shape), "affine": self.affine.tolist(), "codes": self.codes}

    @classmethod
    def from_dict(cls, content: dict) -> "Grid":
        """The inverse of `to_dict`."""
        d, h, w = content["shape"]
        return cls((d, h, w), np.asarray(content["affine"], dtype=np.float64), content["codes"])


def memory() -> float:
    """Bytes that this machine has, infinite where it doesn't say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
