"""What stage 1 minimizes, in PyTorch alone."""

from cortexgen.losses.ncc import local_ncc, ncc_force
from cortexgen.losses.smoothness import gradient_energy

__all__ = ["gradient_energy", "local_ncc", "ncc_force"]
