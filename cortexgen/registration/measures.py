"""How good a registration is: of a batch in training, of a pair that was solved, and of files that any tool made."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.contracts import Registered, Space
from cortexgen.io import Grid
from cortexgen.io.bids import Row
from cortexgen.losses import local_ncc
from cortexgen.metrics.overlap import dice
from cortexgen.metrics.similarity import brain_ncc, brain_psnr, brain_ssim, ncc, psnr, ssim
from cortexgen.metrics.surface_distance import hd95
from cortexgen.registration.propagation import Propagation
from cortexgen.spatial import folded, folded_cubes, identity, log_jacobian, resample, warp_labels
from cortexgen.spatial.precision import full_precision


class Aligned(NamedTuple):
    """What registering a batch of pairs gives, all on the images' grid but `velocity`.

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


def batch_measures(result: Aligned, batch: Mapping[str, Any], window: int, classes: int) -> dict[str, Tensor]:
    """LNCC, mean |u| in the brain (voxels), folded voxels, deviation of log |J|, and Dice where there are labels.

    Arguments:
        batch: "moving" and "fixed", and their labels, each `[B, 1, D, H, W]`.
        window: of the LNCC.
        classes: number of classes of the labels.
    """
    moving, fixed = batch["moving"], batch["fixed"]
    brain = moving > BRAIN_FOREGROUND
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


@full_precision
def registration_measures(result: Registered) -> Row:
    """A registration's row: similarity and Dice before (affines only) and after, fold counts, growth, volumes."""
    moving, fixed, classes = result.moving, result.fixed, result.moving.classes
    affine_only, before, plain = _affines_alone(moving, *_place(fixed), fixed.labels is not None)
    u = (result.displacement - affine_only)[0][:, fixed.image[0] > BRAIN_FOREGROUND]
    distance = (fixed.grid.torch_affine[:3, :3].float() @ u).square().sum(dim=0).sqrt()  # in a tenth of norm's time
    brain = resample(moving.image[None], moving.image_grid.torch_affine, moving.grid.shape, moving.grid.torch_affine)
    row: Row = {
        "ssim_before": ssim(before, fixed.image),
        "ssim": ssim(result.warped, fixed.image),
        "psnr_before": psnr(before, fixed.image),
        "psnr": psnr(result.warped, fixed.image),
        "mean_displacement_mm": float(distance.mean()),
        "sd_log_jacobian": float(result.log_jacobian[brain > BRAIN_FOREGROUND].std()),
        "folded_voxels": result.folded,
        "unfolding_rounds": result.unfolding,
    }
    if result.labels is not None and result.volumes is not None and moving.labels is not None:
        if fixed.labels is not None and plain is not None:
            after = dice(result.labels, fixed.labels, len(classes))
            row["dice_before"] = float(dice(plain, fixed.labels, len(classes)).nanmean())
            row["dice"] = float(after.nanmean())
            row |= {f"dice_{name}": float(d) for name, d in zip(classes[1:], after, strict=True)}
        row |= {f"volume_{name}_ml": float(v) for name, v in zip(classes[1:], result.volumes[1:], strict=False)}
    return {k: None if v != v else v for k, v in row.items()}


def _place(space: Space) -> tuple[tuple[int, int, int], bytes, bytes]:
    """Where a space's results lie, for `_affines_alone`."""
    return space.grid.shape, space.grid.torch_affine.numpy().tobytes(), space.affine.numpy().tobytes()


@lru_cache(maxsize=1)  # subjects in template space share it
def _affines_alone(
    moving: Space, shape: tuple[int, int, int], grid_affine: bytes, affine: bytes, labels: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The displacement of the affines, and the moving image and labels that it warps."""
    grid = Grid(shape, np.frombuffer(grid_affine).reshape(4, 4).copy())
    world = torch.from_numpy(np.frombuffer(affine).reshape(4, 4).copy())
    maps = Propagation(moving, Space("", moving.image, None, grid, grid, world), grid, 0)
    still = maps.still()
    plain = None
    if labels and moving.labels is not None:
        plain = warp_labels(moving.labels[None], maps.positions(still), len(moving.classes))[0][0]
    return still, maps.warp(still), plain


def warped_measures(
    fixed: Tensor,
    warped: Tensor,
    displacement: Tensor | None,
    labels: tuple[Tensor, Tensor] | None,
    spacing: Sequence[float],
    names: Mapping[int, str] | None,
) -> Row:
    """The measures of a fixed image and of one that was registered to it.

    Arguments:
        fixed, warped: `[1, D, H, W]` in [0, 1].
        displacement: the pull-back, `[3, D, H, W]` in voxels of the fixed grid, where there is one.
        labels: of both, likewise, where there are some.
        spacing: of the voxels in mm.
        names: of the labels by index; "label-<index>" unless given.
    """
    brain = torch.from_numpy(binary_fill_holes(fixed[0].numpy() > BRAIN_FOREGROUND))
    row: Row = {"psnr": psnr(warped, fixed), "ssim": ssim(warped, fixed), "ncc": ncc(warped, fixed)}
    row |= {"brain_psnr": brain_psnr(warped, fixed, brain), "brain_ssim": brain_ssim(warped, fixed, brain)}
    row["brain_ncc"] = brain_ncc(warped, fixed, brain)
    if displacement is not None:
        folds = folded_cubes(displacement[None])[0]
        row["folded"] = float(folds.double().mean())
        row["brain_folded"] = float(folds[brain[:-1, :-1, :-1]].double().mean())
        row["brain_sd_log_jacobian"] = float(log_jacobian(displacement[None])[0, 0][brain].std())
    if labels is not None:
        row |= _overlaps(*labels, spacing, names)
    return {name: None if value != value else value for name, value in row.items()}


def _overlaps(a: Tensor, b: Tensor, spacing: Sequence[float], classes: Mapping[int, str] | None) -> Row:
    """Dice and HD95 of each class and their means."""
    index = sorted({0, *(classes or torch.cat([a.unique(), b.unique()]).tolist())})
    x, y = (torch.searchsorted(torch.tensor(index), labels) for labels in (a, b))
    row: Row = {}
    for name, found in (("dice", dice(x, y, len(index))), ("hd95", hd95(x, y, len(index), spacing))):
        row[name] = float(found.nanmean())
        names = ((classes or {}).get(k, f"label-{k}") for k in index[1:])
        row |= {f"{name}_{label}": float(value) for label, value in zip(names, found, strict=True)}
    return row
