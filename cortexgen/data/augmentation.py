"""Augmentation that keeps images, labels and fields of a sample together: all of them move, and vectors turn."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

Augmentation = Literal["none", "mirror", "paper", "scanner"]
Sample = dict[str, Tensor]
FIELDS = ("velocity", "displacement")
VOLUMES = ("moving", "fixed", "moving_labels", "fixed_labels", *FIELDS)


def _turn(sample: Sample, transform: Callable[[Any], Any]) -> Sample:
    """Apply a MONAI transform that permutes voxels to all volumes of a sample.

    MONAI keeps where the voxels of the new grid lie in the old one as an affine; vectors turn by its inverse.
    """
    from monai.data import MetaTensor  # MONAI takes a second

    turned = transform({key: MetaTensor(sample[key]) for key in VOLUMES if key in sample})
    out = sample | {key: volume.as_tensor() for key, volume in turned.items()}
    for key in FIELDS:
        if key in out:
            rotation = turned[key].affine[:3, :3].T.round().to(out[key])
            out[key] = torch.einsum("ij,jdhw->idhw", rotation, out[key])
    return out


@cache
def _spatial(kind: Augmentation) -> Any:
    from monai.transforms import Compose, RandFlipd, RandRotate90d

    shared: dict[str, Any] = {"keys": VOLUMES, "prob": 0.5, "allow_missing_keys": True}
    mirror = RandFlipd(spatial_axis=2, **shared)
    if kind != "paper":
        return Compose([mirror])
    return Compose([mirror, RandFlipd(spatial_axis=1, **shared), RandRotate90d(spatial_axes=(1, 2), **shared)])


@cache
def _scanner() -> Any:
    from monai.transforms import Compose, RandAdjustContrast, RandBiasField, RandGaussianNoise

    bias = RandBiasField(degree=2, coeff_range=(-0.2, 0.2), prob=0.5)
    return Compose([bias, RandAdjustContrast(prob=0.5, gamma=(0.8, 1.25)), RandGaussianNoise(prob=0.5, std=0.03)])


def _seen(image: Tensor, seed: int) -> Tensor:
    """A brain `[1, D, H, W]` as another scanner might show it, scaled as `normalize` does; the background stays 0."""
    brain = image > 0
    seen = _scanner().set_random_state(seed)(image).as_tensor()
    return (brain * seen / torch.quantile(seen[brain][::16], 0.995)).clamp(0, 1) if brain.any() else image


def augment(sample: Sample, kind: Augmentation, generator: torch.Generator | None = None) -> Sample:
    """A random variant of a sample, drawn with torch's generator.

    "mirror" reflects left and right with p = 0.5, for a grid that is symmetric about x = 0. "paper" flips left-right
    and anterior-posterior and rotates by quarter turns in axial slices, p = 0.5 each. "scanner" mirrors, and shows the
    brain of the fixed image with another bias field, contrast and noise, p = 0.5 each.

    Raises:
        ValueError: if "paper" is asked of slices that are not square.
    """
    if kind == "none":
        return sample
    h, w = next(sample[key] for key in VOLUMES if key in sample).shape[-2:]
    if kind == "paper" and h != w:
        raise ValueError(f"quarter turns need square axial slices, got {h} x {w}: set a crop such as [32, 128, 128]")
    seeds = torch.randint(2**31, (2,), generator=generator).tolist()
    sample = _turn(sample, _spatial(kind).set_random_state(seeds[0]))
    if kind == "scanner" and "fixed" in sample:
        sample["fixed"] = _seen(sample["fixed"], seeds[1])
    return sample
