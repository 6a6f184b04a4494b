"""Generators of images and registrations of others, on the contracts that ours are on."""

from cortexgen.modules.baselines.pirate import PirateModule
from cortexgen.modules.baselines.pirateplus import PiratePlusModule

__all__ = ["PirateModule", "PiratePlusModule"]
