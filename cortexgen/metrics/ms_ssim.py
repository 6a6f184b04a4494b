"""Multi-scale structural similarity: how alike two brains are, and how diverse a cohort is.

Values depend on the voxel size, the box and the window: compare a synthetic cohort's mean with that of as many real
brains on the same grid, not with a published number. A higher mean than the real one says that samples vary too little.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn.functional import avg_pool3d

from cortexgen.errors import UserError
from cortexgen.metrics.box import cropped
from cortexgen.metrics.gaussian import gaussian_matrix, ssim_maps

SIGMA, REACH = 1.5, 2  # of the Gaussian window, in voxels: 5 taps
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. (2003), finest scale first


def _window(n: int) -> Tensor:
    """The windows that lie inside n samples, `[n - 4, n]`; all n of them, reflected at the borders, if none does."""
    matrix = gaussian_matrix(n, SIGMA, REACH)
    return matrix[REACH : n - REACH] if n > 2 * REACH else matrix


def _means(pair: Tensor, windows: Sequence[Tensor]) -> tuple[float, float]:
    """Mean SSIM, and mean of its contrast and structure alone, of two images `[2, 1, D, H, W]`."""
    luminance, structure = ssim_maps(pair[0, 0], pair[1, 0], windows)
    return float((luminance * structure).double().mean()), float(structure.double().mean())


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
    pair = torch.stack([a, b]).float()
    if mask is not None:
        pair = cropped(pair, mask, "MS-SSIM")
    least = 2 ** len(weights)
    if min(pair.shape[2:]) < least:
        raise UserError(f"MS-SSIM of {len(weights)} scales needs {least} voxels a side, got {tuple(pair.shape[2:])}")
    product = 1.0
    for scale, weight in enumerate(weights, start=1):
        full, structure = _means(pair, [_window(n) for n in pair.shape[2:]])
        product *= max(full if scale == len(weights) else structure, 0.0) ** weight
        pair = avg_pool3d(pair, 2)
    return product


def published_ms_ssim(a: Tensor, b: Tensor, shifted: bool = False) -> float:
    """MS-SSIM of the published evaluations (3dbraingen's, then the paper's), with what sets it apart from `ms_ssim`.

    The last scale's SSIM enters with four times its weight, once with each other scale; constants are for a data range
    of 1, images in [-1, 1]; the window is scipy's Gaussian, 13 taps and reflected borders.

    Arguments:
        a, b: `[1, D, H, W]` in [-1, 1].
        shifted: raise `(x + 1) / 2` instead of every mean to its power, as the published value of real pairs does.

    Returns:
        The value; NaN if a mean is negative and not shifted.

    Raises:
        ValueError: if the shapes differ.
        UserError: if there are no 16 voxels a side.
    """
    if a.shape != b.shape:
        raise ValueError(f"images differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[1:]) < 16:
        raise UserError(f"MS-SSIM of 5 scales needs 16 voxels a side, got {tuple(a.shape[1:])}")
    pair, means = torch.stack([a, b]).float(), []
    for _ in WEIGHTS:
        windows = [torch.from_numpy(gaussian_filter1d(np.eye(n), SIGMA, axis=0)).float() for n in pair.shape[2:]]
        means.append(_means(pair, windows))
        pair = avg_pool3d(pair, 2)
    full, structures = ((np.array(means) + 1) / 2 if shifted else np.array(means)).T
    with np.errstate(invalid="ignore"):
        return float(np.prod(structures[:-1] ** WEIGHTS[:-1] * full[-1] ** WEIGHTS[-1]))
