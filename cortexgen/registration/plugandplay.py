"""Registration by steps on a pair's misfit and steps towards what a denoiser makes of the field."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortexgen.losses import global_ncc, gradient_energy, local_ncc
from cortexgen.spatial import from_coarse, integrate, warp

Force = Callable[[Tensor], Tensor]  # of a field, like it


class Misfit:
    """`g(φ) = -NCC(moving∘φ, fixed) + w ‖∇φ‖²` of a pair, and its gradient, summed instead of averaged over voxels.

    The gradient is that by g times the number of the images' voxels, so that a step that suits one image size suits
    another.

    Arguments:
        moving, fixed: `[1, 1, D, H, W]` in [0, 1].
        downsample: the field lives on every 1st, 2nd or 4th voxel.
        smoothness: w.
        steps: squarings of a velocity; 0 reads the field as a displacement.
        window: side of the windows of a squared local correlation in voxels; 0 is the correlation of whole images.
    """

    def __init__(
        self,
        moving: Tensor,
        fixed: Tensor,
        downsample: int = 2,
        smoothness: float = 1.0,
        steps: int = 0,
        window: int = 0,
    ) -> None:
        self.moving, self.fixed = moving.float(), fixed.float()
        self.downsample, self.smoothness, self.steps, self.window = downsample, smoothness, steps, window

    def warped(self, field: Tensor) -> Tensor:
        """The moving image in the fixed one's space by a field `[1, 3, d, h, w]` in voxels of its grid."""
        flow = integrate(field, self.steps)
        return warp(self.moving, from_coarse(flow, self.fixed.shape[2:], self.downsample))

    def __call__(self, field: Tensor) -> Tensor:
        """g, a scalar."""
        images = self.warped(field), self.fixed
        similarity = local_ncc(*images, self.window) if self.window else global_ncc(*images)
        return self.smoothness * gradient_energy(field) - similarity

    def gradient(self, field: Tensor) -> Tensor:
        """Of g by the field, times the number of voxels; float32 whatever the autocast."""
        with torch.enable_grad(), torch.autocast(field.device.type, enabled=False):
            field = field.detach().float().requires_grad_()
            return self.fixed.numel() * torch.autograd.grad(self(field), field)[0]


@dataclass(frozen=True)
class PlugAndPlay:
    """`φ ← φ - γ_k (∇g(φ) + τ R(φ))` from a field on, R(φ) = φ - D(φ) being what a denoiser takes away.

    (Hu et al., "Plug-and-play image registration network", ICLR 2024, after regularization by denoising, Romano et
    al., SIAM J. Imaging Sciences 2017.) The step γ_k falls to 0 as half a cosine.

    Attributes:
        iterations: how many.
        step: γ_0.
        weight: τ.
    """

    iterations: int
    step: float
    weight: float

    @torch.no_grad()
    def __call__(self, field: Tensor, force: Force, residual: Force) -> Tensor:
        """The field after all iterations, like `field`.

        Arguments:
            force: ∇g.
            residual: R.
        """
        for k in range(self.iterations):
            falling = (1 + math.cos(math.pi * k / self.iterations)) / 2
            field = self.moved(field, force, residual, falling)
        return field

    def moved(self, field: Tensor, force: Force, residual: Force, share: float = 1.0) -> Tensor:
        """A field after one iteration with a share of the step; it has R's gradient by what R depends on."""
        change = force(field).add(residual(field), alpha=self.weight)
        return field - share * self.step * change
