"""What the stages minimize, in PyTorch alone."""

from cortexgen.losses.denoising import DenoisingLoss, loss_at_fixed_times
from cortexgen.losses.folding import folding_penalty
from cortexgen.losses.ncc import Correlation, global_ncc, local_ncc, ncc_force
from cortexgen.losses.registration import RegistrationLoss, foreground
from cortexgen.losses.smoothness import gradient_energy, gradient_size, roughness_gradient

__all__ = [
    "Correlation",
    "DenoisingLoss",
    "RegistrationLoss",
    "folding_penalty",
    "foreground",
    "global_ncc",
    "gradient_energy",
    "gradient_size",
    "local_ncc",
    "loss_at_fixed_times",
    "ncc_force",
    "roughness_gradient",
]
