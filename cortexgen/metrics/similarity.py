"""Similarity of images with intensities in [0, 1]."""

import math

import torch
from torch import Tensor

from cortexgen.metrics.gaussian import along_axes, gaussian_matrix
from cortexgen.spatial.precision import full_precision

SIGMA, REACH = 1.5, 5  # of the Gaussian window, in voxels: 11 taps
C1, C2 = 0.01**2, 0.03**2


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images `[1, D, H, W]` over the whole grid, data range 1."""
    error = float((a.double() - b.double()).square().mean())
    return -10 * math.log10(error) if error > 0 else math.inf


@full_precision
def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al., 2004) of images `[1, D, H, W]`, data range 1, mean over the whole grid.

    Gaussian window of 1.5 voxels and 11 taps, one axis at a time, borders reflected.
    """
    a, b = a.float(), b.float()
    windows = [gaussian_matrix(n, SIGMA, REACH) for n in a.shape[-3:]]
    mean_a, mean_b, aa, bb, ab = along_axes(torch.cat([a, b, a * a, b * b, a * b]), windows)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a.square() + mean_b.square() + C1)
    variances = (aa - mean_a.square()).clamp(min=0) + (bb - mean_b.square()).clamp(min=0)
    return float((luminance * (2 * (ab - mean_a * mean_b) + C2) / (variances + C2)).double().mean())
