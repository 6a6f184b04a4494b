"""Similarity of images with intensities in [0, 1]."""

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images `[1, D, H, W]` over the whole grid, data range 1."""
    return float(peak_signal_noise_ratio(a, b, data_range=1.0))


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity (Wang et al., 2004) of images `[1, D, H, W]`: Gaussian window of 1.5 voxels, range 1."""
    return float(structural_similarity_index_measure(a[None], b[None], data_range=1.0))
