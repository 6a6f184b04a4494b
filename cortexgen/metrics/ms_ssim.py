"""Multi-scale structural similarity: how alike two brains are, and how diverse a cohort is.

Values depend on the voxel size, the box and the window: compare a synthetic cohort's mean with that of as many real
brains on the same grid, not with a published number. A higher mean than the real one says that samples vary too little.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from cortexgen.errors import UserError
from cortexgen.metrics.gaussian import along_axes, gaussian_matrix

SIGMA, REACH = 1.5, 2  # of the Gaussian window, in voxels: 5 taps
C1, C2 = 0.01**2, 0.03**2
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. (2003), finest scale first


def _window(n: int) -> Tensor:
    """The windows that lie inside n samples, `[n - 4, n]`; all n of them, reflected at the borders, if none does."""
    matrix = gaussian_matrix(n, SIGMA, REACH)
    return matrix[REACH : n - REACH] if n > 2 * REACH else matrix


def _means(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Mean SSIM, and mean of its contrast and structure alone, of images `[D, H, W]`."""
    windows = [_window(n) for n in a.shape]
    mean_a, mean_b, aa, bb, ab = along_axes(torch.stack([a, b, a * a, b * b, a * b]), windows)
    variances = (aa - mean_a.square()).clamp(min=0) + (bb - mean_b.square()).clamp(min=0)
    structure = (2 * (ab - mean_a * mean_b) + C2) / (variances + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    return float((luminance * structure).double().mean()), float(structure.double().mean())


def _crop(volumes: Tensor, mask: Tensor | None) -> Tensor:
    """`[*, D, H, W]` within the bounding box of a mask."""
    if mask is None:
        return volumes
    inside = torch.nonzero(mask.reshape(mask.shape[-3:]))
    if not len(inside):
        raise UserError("MS-SSIM: the mask is empty")
    ends = zip(inside.amin(dim=0).tolist(), inside.amax(dim=0).tolist(), strict=True)
    d, h, w = (slice(low, high + 1) for low, high in ends)
    return volumes[..., d, h, w]


def ms_ssim(a: Tensor, b: Tensor, mask: Tensor | None = None, weights: Sequence[float] = WEIGHTS) -> float:
    """Multi-scale SSIM (Wang, Simoncelli and Bovik, Asilomar 2003), data range 1: `l_M^w_M prod_j (c s)_j^w_j`.

    Gaussian window of 1.5 voxels and 5 taps; scales differ by 2×2×2 averages (an odd last voxel is dropped). Windows
    lie inside the box, as in Wang's and MONAI's code; along an axis that has become shorter than 5 voxels, where none
    would, borders are reflected. A negative mean of a scale counts as 0.

    Arguments:
        a, b: `[1, D, H, W]` in [0, 1].
        mask: what to crop to the bounding box of, `[1, D, H, W]` or `[D, H, W]`, such as the template's brain; without
            it, the background that all brains share brings values near 1.
        weights: of each scale, the finest one first.

    Raises:
        ValueError: if the shapes differ.
        UserError: if the mask is empty, or its box has no 2 voxels a side left on the coarsest scale.
    """
    if a.shape != b.shape:
        raise ValueError(f"images differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    pair = _crop(torch.stack([a, b]).float(), mask)
    least = 2 ** len(weights)
    if min(pair.shape[2:]) < least:
        raise UserError(f"MS-SSIM of {len(weights)} scales needs {least} voxels a side, got {tuple(pair.shape[2:])}")
    product = 1.0
    for scale, weight in enumerate(weights, start=1):
        full, structure = _means(pair[0, 0], pair[1, 0])
        product *= max(full if scale == len(weights) else structure, 0.0) ** weight
        pair = avg_pool3d(pair, 2)
    return product


def mean_pairwise_ms_ssim(
    volumes: Tensor | Sequence[Tensor], pairs: int, seed: int = 0, mask: Tensor | None = None
) -> float:
    """Mean MS-SSIM over pairs of a cohort, drawn without replacement; over all of them if there are no more.

    Arguments:
        volumes: `[N, 1, D, H, W]` in [0, 1], or a list of `[1, D, H, W]`.
        pairs: how many.
        seed: of the draw.
        mask: see `ms_ssim`.

    Raises:
        UserError: if there are fewer than two volumes, or no pairs are asked for.
    """
    if len(volumes) < 2 or pairs < 1:
        raise UserError(f"MS-SSIM needs 2 or more brains and 1 or more pairs, got {len(volumes)} and {pairs}")
    every = torch.combinations(torch.arange(len(volumes)))
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    scores = [ms_ssim(volumes[i], volumes[j], mask) for i, j in every[order[:pairs]].tolist()]
    return sum(scores) / len(scores)
