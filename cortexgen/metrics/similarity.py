"""Similarity of images with intensities in [0, 1]: over the whole grid, or inside a brain mask."""

import math

from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.box import bounding_box
from cortexgen.metrics.gaussian import gaussian_matrix, ssim_maps

SIGMA, REACH = 1.5, 5  # of the Gaussian window, in voxels: 11 taps


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images `[1, D, H, W]` over the whole grid, data range 1."""
    error = float((a.double() - b.double()).square().mean())
    return -10 * math.log10(error) if error > 0 else math.inf


def _ssim_map(a: Tensor, b: Tensor) -> Tensor:
    luminance, structure = ssim_maps(a, b, [gaussian_matrix(n, SIGMA, REACH) for n in a.shape[-3:]])
    return luminance * structure


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al., 2004) of images `[1, D, H, W]`, data range 1, mean over the whole grid.

    Gaussian window of 1.5 voxels and 11 taps, one axis at a time, borders reflected.
    """
    box = bounding_box((a != 0) | (b != 0))
    if box is None:
        return 1.0
    # A window beyond the taps' reach of either image sees zeros alone, where the map is 1.
    d, h, w = (slice(max(0, low - REACH - 1), high + REACH + 2) for low, high in zip(*box, strict=True))
    near = _ssim_map(a[..., d, h, w], b[..., d, h, w]).double()
    return 1 - float((1 - near).sum()) / a.numel()


def ncc(a: Tensor, b: Tensor) -> float:
    """Normalized cross-correlation of images over the whole grid: Pearson's r of their voxels, NaN if one is constant.

    The background that both share raises it: `brain_ncc` is without.
    """
    x, y = a.double().flatten(), b.double().flatten()
    x, y = x - x.mean(), y - y.mean()
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size > 0 else math.nan


def _inside(mask: Tensor, a: Tensor) -> Tensor:
    inside = mask.bool().reshape(a.shape)
    if not inside.any():
        raise UserError("similarity inside the brain: the mask is empty")
    return inside


def brain_psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """`psnr` over the voxels of a mask `[1, D, H, W]` or `[D, H, W]`.

    Raises:
        UserError: if the mask is empty.
    """
    inside = _inside(mask, a)
    return psnr(a[inside], b[inside])


def brain_ssim(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """Mean over a mask's voxels of the local `ssim`, with windows beyond its border; errors as `brain_psnr`."""
    inside = _inside(mask, a)
    return float(_ssim_map(a, b).reshape(a.shape)[inside].double().mean())


def brain_ncc(a: Tensor, b: Tensor, mask: Tensor) -> float:
    """`ncc` over the voxels of a mask; shapes and errors as `brain_psnr`."""
    inside = _inside(mask, a)
    return ncc(a[inside], b[inside])
