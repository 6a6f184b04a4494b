"""Measures of registrations and of generated brains."""

from cortexgen.metrics.ageing import AgeCurve, age_curve
from cortexgen.metrics.anatomy import (
    adjusted_effects,
    effect_sizes,
    tissue_volumes,
    wasabi,
    wasserstein_index,
)
from cortexgen.metrics.classifier import area_under_curve, balanced_accuracy, told_apart, told_apart_auc
from cortexgen.metrics.cortex import Cortex, cortical_measures
from cortexgen.metrics.coverage import Coverage, expected_coverage, precision_and_coverage
from cortexgen.metrics.distances import pairwise_distances
from cortexgen.metrics.effects import Estimate, adjusted, cohens_d, sd_ratio, slope
from cortexgen.metrics.features import extract_features
from cortexgen.metrics.frechet import frechet_distance
from cortexgen.metrics.medicalnet import MedicalNet, load_medicalnet
from cortexgen.metrics.memorization import Memorization, Nearest, memorization, nearest_subjects
from cortexgen.metrics.mmd import mmd2
from cortexgen.metrics.morphometry import growth_volumes, regional_volumes, volume_weights
from cortexgen.metrics.ms_ssim import ms_ssim
from cortexgen.metrics.overlap import dice
from cortexgen.metrics.random_features import RandomFeatures
from cortexgen.metrics.resampling import bootstrap_interval, percentiles, real_against_real, same_size
from cortexgen.metrics.similarity import brain_ncc, brain_psnr, brain_ssim, ncc, psnr, ssim
from cortexgen.metrics.surface_distance import hd95
from cortexgen.metrics.voxelwise import log_jacobian_shift, log_jacobian_spread
