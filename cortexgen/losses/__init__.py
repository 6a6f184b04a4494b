"""What stage 1 minimizes, in PyTorch alone."""

from cortexgen.losses.folding import folding_penalty
from cortexgen.losses.ncc import local_ncc, ncc_force
from cortexgen.losses.registration import RegistrationLoss
from cortexgen.losses.smoothness import gradient_energy

__all__ = ["RegistrationLoss", "folding_penalty", "gradient_energy", "local_ncc", "ncc_force"]
