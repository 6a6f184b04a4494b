"""Generators of images and registrations of others, on the contracts that ours are on."""

from cortexgen.modules.baselines.alphawgan import AlphaWGAN
from cortexgen.modules.baselines.cdpm import CDPM
from cortexgen.modules.baselines.hagan import HAGAN
from cortexgen.modules.baselines.latentdiffusion import LatentDiffusion
from cortexgen.modules.baselines.medsyn import MedSyn
from cortexgen.modules.baselines.pirate import PirateModule
from cortexgen.modules.baselines.pirateplus import PiratePlusModule
from cortexgen.modules.baselines.vaegan import VAEGAN

__all__ = ["CDPM", "HAGAN", "VAEGAN", "AlphaWGAN", "LatentDiffusion", "MedSyn", "PirateModule", "PiratePlusModule"]
