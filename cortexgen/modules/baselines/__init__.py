"""Generators of images and registrations of others, on the contracts that ours are on."""

from cortexgen.modules.baselines.cdpm import CDPM
from cortexgen.modules.baselines.latentdiffusion import LatentDiffusion
from cortexgen.modules.baselines.medsyn import MedSyn

__all__ = ["CDPM", "LatentDiffusion", "MedSyn"]
