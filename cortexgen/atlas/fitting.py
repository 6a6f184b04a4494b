"""Labels that follow an image's own tissue, where a smooth field leaves them beside it."""

from collections.abc import Sequence

import torch
from scipy.ndimage import find_objects, gaussian_filter, uniform_filter
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.cortex import CORTEX, WHITE

BLUR = 2.4  # mm, deviation of the Gaussian that makes priors of labels: how far a boundary may be from its place
REACH = 30.0  # mm, side of the cubes in which a tissue has one mean
SHRINK = 20.0  # voxels of the whole image's mean that each cube's is averaged with
ROUNDS = 5
NOISE = 1e-4  # least variance of a tissue, of images in [0, 1]
EVERYWHERE = 1e-6  # of a prior


def fitted_classes(classes: Sequence[str]) -> tuple[int, int, int] | None:
    """Those that `fit_labels` moves boundaries between: outside, white matter, cortex; None if there aren't any."""
    return (0, classes.index(WHITE), classes.index(CORTEX)) if CORTEX in classes and WHITE in classes else None


def fit_labels(image: Tensor, labels: Tensor, classes: Sequence[str], spacing: float) -> Tensor:
    """Move the boundaries of the cerebral cortex to where the image has them.

    A Gaussian mixture of three tissues, fluid, white matter and cortex, fitted by expectation maximization with the
    blurred labels as priors (Ashburner & Friston, NeuroImage 2005); means vary in space, for cortex isn't equally
    bright everywhere. Deep structures, cerebellum and brain stem stay: their contrast with what surrounds them is too
    low to know better than the labels. What the image has as 0, outside of its mask, is no tissue.

    Arguments:
        image: `[1, D, H, W]` in [0, 1], skull-stripped.
        labels: likewise, indices of `classes`, about right.
        spacing: of the voxels in mm.

    Returns:
        The labels, `[1, D, H, W]` int64.

    Raises:
        UserError: if the classes have no cerebral cortex or white matter.
    """
    names = fitted_classes(classes)
    if names is None:
        raise UserError(f"fitting labels needs the classes {CORTEX} and {WHITE}, got {', '.join(classes)}")
    out = labels.clone()
    out[image <= 0] = 0
    tissue = torch.isin(labels, torch.tensor(names[1:]))[0]
    if not tissue.any():
        return out
    margin = int(3 * BLUR / spacing) + 1
    (box,) = find_objects(tissue.numpy().astype("int8"))
    box = tuple(
        slice(max(0, side.start - margin), min(n, side.stop + margin))
        for side, n in zip(box, tissue.shape, strict=True)
    )
    part, inside = labels[0][box], image[0][box].float()
    free = torch.isin(part, torch.tensor(names)) & (inside > 0)
    if not free.any():
        return out
    blurred = [gaussian_filter((part == k).float().numpy(), BLUR / spacing, mode="nearest") for k in names]
    priors = torch.stack([torch.from_numpy(x)[free] for x in blurred]) + EVERYWHERE
    log_priors = (priors / priors.sum(dim=0)).log()
    values, side, shares = inside[free], 2 * round(REACH / spacing / 2) + 1, log_priors.exp()
    for _ in range(ROUNDS):
        means = torch.stack([_local_mean(inside, free, share, side) for share in shares])
        away = (values - means).square()
        variances = ((shares * away).sum(dim=1) / shares.sum(dim=1).clamp(min=1e-6) + NOISE)[:, None]
        shares = torch.softmax(log_priors - away / (2 * variances) - variances.log() / 2, dim=0)
    view = out[0][box]
    view[free] = torch.tensor(names)[shares.argmax(dim=0)]
    return out


def _local_mean(image: Tensor, where: Tensor, share: Tensor, side: int) -> Tensor:
    """A tissue's mean in cubes about each voxel of `where`, given its share of these voxels."""
    weights = torch.zeros_like(image)
    weights[where] = share
    sums, counts = (uniform_filter(x.numpy(), side, mode="constant") * side**3 for x in (weights * image, weights))
    whole = float((share * image[where]).sum() / share.sum().clamp(min=1e-6))
    local = (torch.from_numpy(sums) + SHRINK * whole) / (torch.from_numpy(counts).clamp(min=0) + SHRINK)
    return local[where]
