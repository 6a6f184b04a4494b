"""The measures of one pair, a fixed image and what was registered to it."""

from collections.abc import Mapping, Sequence

import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.evaluation.pairs import Warped
from cortexgen.evaluation.reading import Brain
from cortexgen.evaluation.table import Column
from cortexgen.io.bids import Row
from cortexgen.metrics import brain_ncc, brain_psnr, brain_ssim, dice, hd95, ncc, psnr, ssim
from cortexgen.spatial import folded_cubes, log_jacobian

VERSION = 1  # raised when `measure` gives something else for the same files
MEASURES = (  # the first two need labels, and are of each class, too
    Column("dice", "Dice", better="higher", format=".3f"),
    Column("hd95", "HD95", unit="mm", better="lower", format=".2f"),
    Column("psnr", "PSNR", unit="dB", better="higher", format=".2f"),
    Column("ssim", "SSIM", better="higher", format=".3f"),
    Column("ncc", "NCC", better="higher", format=".3f"),
    Column("brain_psnr", "PSNR in the brain", unit="dB", better="higher", format=".2f"),
    Column("brain_ssim", "SSIM in the brain", better="higher", format=".3f"),
    Column("brain_ncc", "NCC in the brain", better="higher", format=".3f"),
    Column("folded", "Folded share", better="lower", format=".2g"),
    Column("brain_folded", "Folded share in the brain", better="lower", format=".2g"),
    Column("brain_sd_log_jacobian", "SD of log |J| in the brain", format=".3f"),
)


def measure(fixed: Brain, warped: Warped, displacement: Tensor | None, classes: Mapping[int, str] | None) -> Row:
    """The measures of one pair.

    Arguments:
        displacement: the pull-back, `[3, D, H, W]` in voxels of the fixed grid, where there is one.
        classes: names of the labels by index; "label-<index>" unless given.
    """
    brain = torch.from_numpy(binary_fill_holes(fixed.image[0].numpy() > BRAIN_FOREGROUND))
    row: Row = {"psnr": psnr(warped.image, fixed.image), "ssim": ssim(warped.image, fixed.image)}
    row["ncc"] = ncc(warped.image, fixed.image)
    row |= {"brain_psnr": brain_psnr(warped.image, fixed.image, brain)}
    row |= {"brain_ssim": brain_ssim(warped.image, fixed.image, brain)}
    row |= {"brain_ncc": brain_ncc(warped.image, fixed.image, brain)}
    if displacement is not None:
        folds = folded_cubes(displacement[None])[0]
        row["folded"] = float(folds.double().mean())
        row["brain_folded"] = float(folds[brain[:-1, :-1, :-1]].double().mean())
        row["brain_sd_log_jacobian"] = float(log_jacobian(displacement[None])[0, 0][brain].std())
    if fixed.labels is not None and warped.labels is not None:
        row |= _overlaps(fixed.labels, warped.labels, fixed.grid.spacing, classes)
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
