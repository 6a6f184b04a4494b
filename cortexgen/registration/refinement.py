"""Gradient steps on the velocity of one pair, after the network's answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cortexgen.losses import Correlation, foreground, roughness_gradient
from cortexgen.spatial import antialias, fold_places, integrate, smoothed_near, warp

WARM_UP = 2  # steps
FLOOR = 1e-3  # variance of noise: what contrasts less than that moves nothing
SHARPNESS = 0.5  # of what a blur over three voxels takes away
BETAS = (0.7, 0.9)
SQUARINGS = 2  # that are enough for a gradient
REACH = 3  # voxels: half-width of each of the two triangles that smooth a step
TIGHT = 0.05  # a determinant below it may be that of a fold when the flow is integrated finely


def _sharpened(image: Tensor) -> Tensor:
    return image + SHARPNESS * (image - antialias(image, (3, 3, 3)))


def smoothed_step(step: Tensor) -> Tensor:
    """A field `[1, 3, D, H, W]`, smoothed along each axis by a triangle of three voxels' half-width, twice."""
    return antialias(antialias(step, [REACH] * 3), [REACH] * 3)


@dataclass(frozen=True)
class Refinement:
    """Descent on `-LNCC(moving∘exp(v), fixed) + lambda_i (moving∘exp(v) - fixed)² + lambda_phi ‖∇v‖²` of one pair.

    The velocity lives on the images' own grid. A step takes the gradient by the displacement, in closed form, for that
    by the velocity, to which it is equal where the flow is short: nothing is differentiated through the squarings. Both
    images are sharpened before, for the sake of small structures. What is smooth in a gradient counts for more (a
    Sobolev gradient; Neuberger, 1997), so that places move together, and less roughness is to be paid for. The steps
    are Adam's with one second moment for all voxels, so that places with little to say don't move as far as the cortex
    does; the rate warms up and falls as half a cosine. In the end the velocity is smoothed once where its flow is about
    to fold, which costs less than to find it folded afterwards.

    Attributes:
        steps: how many.
        lr: root mean square of the largest step, in voxels.
        smoothness: lambda_phi.
        intensity: lambda_i, for images whose intensities mean the same.
        window: side of the LNCC windows in voxels.
        foreground: average the LNCC over the brain and two voxels around it, instead of over the grid.
        symmetric: compare in the fixed image's space and in the moving one's by turns.
        squarings: of the velocity's flow, of which a step makes two at most; 0 reads it as a displacement.
        residual: R(v) = v - D(v), what a denoiser of fields takes away from a velocity.
        learned: its weight: a step's gradient has `2 learned R(v)` a voxel more (regularization by denoising, Romano et
            al., SIAM J. Imaging Sciences 2017).
        direction: what of a gradient `[1, 3, D, H, W]` is added to it, at the same size,
        share: times this; 0 leaves the gradient alone.
    """

    steps: int
    lr: float = 0.22
    smoothness: float = 6.0
    intensity: float = 0.0
    window: int = 5
    foreground: bool = True
    symmetric: bool = True
    squarings: int = 7
    residual: Callable[[Tensor], Tensor] | None = None
    learned: float = 0.0
    direction: Callable[[Tensor], Tensor] = smoothed_step
    share: float = 3.0

    @torch.no_grad()
    def __call__(self, velocity: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        """The velocity `[1, 3, D, H, W]`, refined; `moving` and `fixed` are `[1, 1, D, H, W]`."""
        with torch.autocast(velocity.device.type, enabled=False):
            return self._descend(velocity.float().clone(), _sharpened(moving.float()), _sharpened(fixed.float()))

    def _descend(self, v: Tensor, moving: Tensor, fixed: Tensor) -> Tensor:
        masks = [foreground(image) if self.foreground else torch.ones_like(image) for image in (fixed, moving)]
        spaces = [(moving, Correlation(fixed, self.window, FLOOR, masks[0]))]
        if self.symmetric:
            spaces.append((fixed, Correlation(moving, self.window, FLOOR, masks[1])))
        mean, square, flows = torch.zeros_like(v), v.new_zeros(()), dict[bool, Tensor]()
        inside = max(1.0, float(masks[0].sum())) / fixed.numel()
        for step in range(self.steps):
            back = step % len(spaces) == 1
            image, correlation = spaces[back]
            flows[back] = integrate(v, min(self.squarings, SQUARINGS), inverse=back)
            warped = warp(image, flows[back])
            slope = torch.cat(torch.gradient(warped, dim=(2, 3, 4)), dim=1)
            by_intensity = -correlation.gradient(warped)
            if self.intensity:
                by_intensity += 2 * self.intensity / fixed.numel() * (warped - correlation.fixed)
            gradient = roughness_gradient(v).mul_(self.smoothness)
            gradient.addcmul_(slope, by_intensity, value=-1 if back else 1)
            if self.residual is not None:
                gradient.add_(self.residual(v), alpha=2 * self.learned / v.numel())
            if self.share:
                along = self.direction(gradient)
                gradient.add_(along, alpha=self.share * float(gradient.norm() / along.norm().clamp(min=1e-12)))
            mean.lerp_(gradient, 1 - BETAS[0])
            square.lerp_(gradient.square().mean() / inside, 1 - BETAS[1])
            falling = 0.05 + 0.475 * (1 + math.cos(math.pi * step / self.steps))
            rate = self.lr * falling * min(1.0, (step + 1) / WARM_UP) / (1 - BETAS[0] ** (step + 1))
            v -= rate / ((square / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-12) * mean
        eye = torch.eye(4, dtype=torch.float64, device=v.device)
        places = [fold_places(flow, flow, eye, TIGHT) for flow in flows.values()]
        return smoothed_near(v, torch.cat(places)) if any(map(len, places)) else v
