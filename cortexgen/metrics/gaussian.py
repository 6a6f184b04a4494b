"""Gaussian smoothing of volumes, one axis at a time, and what SSIM makes of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cortexgen.spatial.precision import full_precision

C1, C2 = 0.01**2, 0.03**2  # SSIM's


def gaussian_matrix(n: int, sigma: float, reach: int) -> Tensor:
    """Smoothing of n samples by `2 reach + 1` Gaussian weights that sum to 1, as a matrix `[n, n]`, float32.

    Borders are reflected, the end sample not repeated: scipy's "mirror".
    """
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    period = max(2 * (n - 1), 1)
    places = (torch.arange(n)[:, None] + offsets).remainder(period)
    places = torch.minimum(places, period - places)
    matrix = torch.zeros(n, n, dtype=torch.float64)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(n, -1)).float()


@full_precision
def along_axes(volumes: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiply each axis of `[*, D, H, W]` by its matrix `[m, n]`, in float32."""
    d, h, w = (matrix.to(volumes.device) for matrix in matrices)
    volumes = h @ (volumes.float() @ w.T)
    return (d @ volumes.flatten(-2)).unflatten(-1, volumes.shape[-2:])


def ssim_maps(a: Tensor, b: Tensor, windows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Local luminance, and contrast times structure, of images `[*, D, H, W]` of data range 1 (Wang et al., 2004).

    Arguments:
        windows: smoothing along D, H and W, `[m, n]` each.

    Returns:
        float32, `[*, m_D, m_H, m_W]`; SSIM is their product.
    """
    a, b = a.float(), b.float()
    mean_a, mean_b, aa, bb, ab = along_axes(torch.stack([a, b, a * a, b * b, a * b]), windows)
    variances = (aa - mean_a.square()).clamp(min=0) + (bb - mean_b.square()).clamp(min=0)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    return luminance, (2 * (ab - mean_a * mean_b) + C2) / (variances + C2)


def gaussian(volumes: Tensor, sigma: float) -> Tensor:
    """Volumes `[*, D, H, W]` smoothed by a Gaussian of `sigma` voxels, cut at four sigma, borders reflected."""
    if sigma <= 0:
        return volumes
    return along_axes(volumes, [gaussian_matrix(n, sigma, round(4 * sigma)) for n in volumes.shape[-3:]])
