"""Augmentation that keeps images, labels and fields of a sample together: all of them move, and vectors turn."""

from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["none", "mirror", "paper"]
Sample = dict[str, Tensor]
FIELDS = ("velocity", "displacement")
VOLUMES = ("moving", "fixed", "moving_labels", "fixed_labels", *FIELDS)


def flip(sample: Sample, axis: int) -> Sample:
    """Reverse axis 0 (D), 1 (H) or 2 (W) of every `[C, D, H, W]` volume; fields change that component's sign."""
    out = dict(sample)
    for key in VOLUMES:
        if key in sample:
            out[key] = sample[key].flip(1 + axis)
    for key in FIELDS:
        if key in out:
            sign = torch.ones(3, 1, 1, 1)
            sign[axis] = -1
            out[key] = out[key] * sign
    return out


def rotate90(sample: Sample, turns: int) -> Sample:
    """Rotate every volume by `turns` quarter turns in the (H, W) plane, vectors too.

    One turn takes the voxel (h, w) to (W - 1 - w, h), so a vector (u_h, u_w) becomes (-u_w, u_h).
    """
    out = dict(sample)
    for _ in range(turns % 4):
        for key in VOLUMES:
            if key in out:
                out[key] = torch.rot90(out[key], 1, dims=(2, 3))
        for key in FIELDS:
            if key in out:
                d, h, w = out[key]
                out[key] = torch.stack([d, -w, h])
    return out


def augment(sample: Sample, kind: Augmentation, generator: torch.Generator | None = None) -> Sample:
    """A random variant of a sample.

    "mirror" reflects left and right with p = 0.5, for a grid that is symmetric about x = 0. "paper" flips left-right
    and anterior-posterior and rotates by quarter turns in axial slices, p = 0.5 each.

    Raises:
        ValueError: if "paper" is asked of slices that are not square.
    """
    if kind == "none":
        return sample
    draw = torch.rand(4, generator=generator)
    if kind == "mirror":
        return flip(sample, 2) if draw[0] < 0.5 else sample
    h, w = next(sample[key] for key in VOLUMES if key in sample).shape[-2:]
    if h != w:
        raise ValueError(f"quarter turns need square axial slices, got {h} x {w}: set a crop such as [32, 128, 128]")
    if draw[0] < 0.5:
        sample = flip(sample, 2)
    if draw[1] < 0.5:
        sample = flip(sample, 1)
    if draw[2] < 0.5:
        sample = rotate90(sample, 1 + int(draw[3] * 3))
    return sample
