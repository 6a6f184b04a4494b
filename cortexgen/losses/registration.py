"""What a velocity costs: similarity, roughness and nearness to folding, in training."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cortexgen.losses.folding import folding_penalty
from cortexgen.losses.ncc import local_ncc
from cortexgen.losses.smoothness import gradient_energy
from cortexgen.spatial import from_coarse, grown, integrate, warp

FOREGROUND = 0.05
Space = Literal["fixed", "moving"]


def foreground(image: Tensor, margin: int = 2) -> Tensor:
    """The voxels of `[B, 1, D, H, W]` above 0.05 and those within `margin` voxels of them, as float."""
    return grown(image > FOREGROUND, margin).float()


@dataclass(frozen=True)
class RegistrationLoss:
    """`-LNCC(moving∘φ, fixed) + lambda_phi ‖∇v‖² + lambda_fold fold(φ)`.

    Attributes:
        window: side of the LNCC windows in voxels.
        smoothness: lambda_phi.
        folding: lambda_fold, on the velocity's grid: for exp(v), or for exp(-v) where the moving image's space is
            compared in; each step looks at one of them.
        foreground: average the LNCC over the brain and two voxels around it, instead of over the grid.
        integration_steps: squarings; 0 reads the velocity as a displacement.
        field_downsample: the velocity lives on every 1st, 2nd or 4th voxel.
        floor: variance that the LNCC adds to those of its windows, about that of the noise: smaller contrasts than that
            have no say.
    """

    window: int = 9
    smoothness: float = 1.0
    folding: float = 0.0
    foreground: bool = False
    integration_steps: int = 7
    field_downsample: int = 2
    floor: float = 1e-4

    def terms(self, moving: Tensor, fixed: Tensor, velocity: Tensor, space: Space = "fixed") -> dict[str, Tensor]:
        """Scalars "similarity" (negative LNCC), "roughness" and "folding" of velocities `[B, 3, d, h, w]`.

        Arguments:
            moving, fixed: `[B, 1, D, H, W]` in [0, 1].
            space: compare on the fixed image's grid, or the fixed image warped by the inverse on the moving one's.
        """
        if space == "moving":
            moving, fixed = fixed, moving
        displacement = integrate(velocity, self.integration_steps, inverse=space == "moving")
        warped = warp(moving, from_coarse(displacement, fixed.shape[2:], self.field_downsample))
        mask = foreground(fixed) if self.foreground else None
        return {
            "similarity": -local_ncc(warped, fixed, self.window, self.floor, mask),
            "roughness": gradient_energy(velocity),
            "folding": folding_penalty(displacement) if self.folding else velocity.new_zeros(()),
        }

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of `terms`."""
        weights = {"similarity": 1.0, "roughness": self.smoothness, "folding": self.folding}
        return torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()

    def __call__(self, moving: Tensor, fixed: Tensor, velocity: Tensor, space: Space = "fixed") -> Tensor:
        """The loss of `terms`, a scalar."""
        return self.total(self.terms(moving, fixed, velocity, space))
