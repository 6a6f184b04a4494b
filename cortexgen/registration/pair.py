"""What stage 1 says of a pair of images, and how good it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cortexgen.losses import local_ncc
from cortexgen.metrics import dice
from cortexgen.spatial import folded, identity, log_jacobian, warp_labels


class Denoised(NamedTuple):
    """G's answer: the noise `[B, 1, D, H, W]` and the features that it is read from, `[B, C, d, h, w]`."""

    noise: Tensor
    features: Tensor


@dataclass(frozen=True)
class Registration:
    """What registering a pair gives, all on the images' grid but `velocity`.

    Attributes:
        velocity: `[B, 3, d, h, w]` in voxels of its (coarser) grid.
        displacement: u, `[B, 3, D, H, W]` in voxels: `warped(p) = moving(p + u(p))`.
        inverse: its inverse, that of exp(-v).
        warped: `[B, 1, D, H, W]`.
    """

    velocity: Tensor
    displacement: Tensor
    inverse: Tensor
    warped: Tensor


def pair_metrics(result: Registration, batch: Mapping[str, Any], window: int, classes: int) -> dict[str, Tensor]:
    """LNCC, mean |u| in the brain (voxels), folded voxels, deviation of log |J|, and Dice where there are labels.

    Arguments:
        batch: "moving" and "fixed", and their labels, each `[B, 1, D, H, W]`.
        window: of the LNCC.
        classes: number of classes of the labels.
    """
    moving, fixed = batch["moving"], batch["fixed"]
    brain = moving > 0.05
    metrics = {
        "ncc": local_ncc(result.warped, fixed, window),
        "displacement": torch.linalg.vector_norm(result.displacement, dim=1, keepdim=True)[brain].mean(),
        "folded": (folded(result.displacement) + folded(result.inverse)).float().mean(),
        "sd_log_jacobian": log_jacobian(result.inverse)[brain].std(),
    }
    if "fixed_labels" in batch:
        positions = identity(fixed.shape[2:], fixed.device) + result.displacement
        labels, _ = warp_labels(batch["moving_labels"], positions, classes)
        pairs = zip(labels, batch["fixed_labels"], strict=True)
        metrics["dice"] = torch.stack([dice(a, b, classes).nanmean() for a, b in pairs]).mean()
    return metrics
