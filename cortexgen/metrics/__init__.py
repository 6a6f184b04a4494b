"""Measures of registrations and of generated brains."""

from cortexgen.metrics.coverage import Coverage, expected_coverage, precision_and_coverage
from cortexgen.metrics.distances import energy_score, pairwise_distances
from cortexgen.metrics.effects import Estimate, adjusted, cohens_d, sd_ratio, slope
from cortexgen.metrics.memorization import Memorization, Nearest, memorization, nearest_subjects
from cortexgen.metrics.morphometry import regional_volumes, volume_weights
from cortexgen.metrics.ms_ssim import mean_pairwise_ms_ssim, ms_ssim
from cortexgen.metrics.overlap import dice
from cortexgen.metrics.similarity import psnr, ssim
from cortexgen.metrics.voxelwise import VoxelMap, log_jacobian_shift, log_jacobian_spread

__all__ = [
    "Coverage",
    "Estimate",
    "Memorization",
    "Nearest",
    "VoxelMap",
    "adjusted",
    "cohens_d",
    "dice",
    "energy_score",
    "expected_coverage",
    "log_jacobian_shift",
    "log_jacobian_spread",
    "mean_pairwise_ms_ssim",
    "memorization",
    "ms_ssim",
    "nearest_subjects",
    "pairwise_distances",
    "precision_and_coverage",
    "psnr",
    "regional_volumes",
    "sd_ratio",
    "slope",
    "ssim",
    "volume_weights",
]
