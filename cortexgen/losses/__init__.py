"""What the stages minimize, in PyTorch alone."""

from cortexgen.losses.denoising import DenoisingLoss
from cortexgen.losses.folding import folding_penalty
from cortexgen.losses.ncc import local_ncc, ncc_force
from cortexgen.losses.registration import RegistrationLoss
from cortexgen.losses.smoothness import gradient_energy

__all__ = ["DenoisingLoss", "RegistrationLoss", "folding_penalty", "gradient_energy", "local_ncc", "ncc_force"]
