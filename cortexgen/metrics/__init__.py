"""Measures of registrations and of generated brains."""

from cortexgen.metrics.morphometry import regional_volumes, volume_weights
from cortexgen.metrics.overlap import dice
from cortexgen.metrics.similarity import psnr, ssim

__all__ = ["dice", "psnr", "regional_volumes", "ssim", "volume_weights"]
