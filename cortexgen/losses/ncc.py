"""Normalized cross-correlation, local and global."""

import torch
from torch import Tensor

from cortexgen.spatial import window_sums


def _local_mean(volume: Tensor, window: int, adjoint: bool = False) -> Tensor:
    """Mean over a cube around each voxel, over what of the cube lies inside the grid; or the adjoint of that map."""
    reach, share = window // 2, volume.new_ones(())
    for size in volume.shape[2:]:
        place = torch.arange(size, device=volume.device)
        share = share[..., None] / ((place + reach).clamp(max=size - 1) - (place - reach).clamp(min=0) + 1)
    return window_sums(volume * share, reach) if adjoint else window_sums(volume, reach) * share


def _statistics(w: Tensor, f: Tensor, window: int, eps: float) -> tuple[Tensor, ...]:
    """Local means, covariance, and variances with `eps` added, of two float32 images."""
    means = _local_mean(torch.cat([w, f, w * w, f * f, w * f], dim=1), window)
    mean_w, mean_f, ww, ff, wf = means.split(1, dim=1)
    var_w = (ww - mean_w.square()).clamp(min=0) + eps
    var_f = (ff - mean_f.square()).clamp(min=0) + eps
    return mean_w, mean_f, wf - mean_w * mean_f, var_w, var_f


def local_ncc(warped: Tensor, fixed: Tensor, window: int = 9, eps: float = 1e-4, mask: Tensor | None = None) -> Tensor:
    """Squared local cross-correlation, in [0, 1]: `cov² / (var_w var_f)` over cubes (Avants et al., MedIA 2008).

    `eps` is added to each variance, so that flat regions give 0 instead of noise (intensities are about [0, 1]); the
    arithmetic is float32 whatever the autocast.

    Arguments:
        warped, fixed: `[B, 1, D, H, W]`.
        window: side of the cube in voxels, odd.
        mask: `[B or 1, 1, D, H, W]` weights of each image's mean; it is taken over all voxels unless given.

    Returns:
        The mean over the images of a batch, a scalar; 1 is a perfect local affine relation of intensities.

    Raises:
        ValueError: if the window is even or the shapes differ.
    """
    if window % 2 == 0:
        raise ValueError(f"the window must be odd, got {window}")
    if warped.shape != fixed.shape:
        raise ValueError(f"images differ in shape: {tuple(warped.shape)} and {tuple(fixed.shape)}")
    with torch.autocast(warped.device.type, enabled=False):
        _, _, covariance, var_w, var_f = _statistics(warped.float(), fixed.float(), window, eps)
        ncc = covariance.square() / (var_w * var_f)
        if mask is None:
            return ncc.mean()
        mask = mask.expand_as(ncc)
        return ((ncc * mask).sum(dim=(1, 2, 3, 4)) / mask.sum(dim=(1, 2, 3, 4)).clamp(min=1e-6)).mean()


def global_ncc(warped: Tensor, fixed: Tensor, eps: float = 1e-8) -> Tensor:
    """Correlation of intensities over the whole image, in [-1, 1], averaged over a batch `[B, 1, D, H, W]`; a scalar.

    `eps` is added to each variance; the arithmetic is float32 whatever the autocast.
    """
    with torch.autocast(warped.device.type, enabled=False):
        w, f = (image.float().flatten(1) for image in (warped, fixed))
        w, f = (image - image.mean(dim=1, keepdim=True) for image in (w, f))
        spread = ((w.square().mean(dim=1) + eps) * (f.square().mean(dim=1) + eps)).sqrt()
        return ((w * f).mean(dim=1) / spread).mean()


class Correlation:
    """The mean `local_ncc` of images with a fixed one, and its gradient by their intensities in closed form.

    Arguments:
        fixed: `[B, 1, D, H, W]`, float32; its statistics are taken once.
        window, eps, mask: as of `local_ncc`.
    """

    def __init__(self, fixed: Tensor, window: int = 9, eps: float = 1e-4, mask: Tensor | None = None) -> None:
        self.fixed, self.window, self.eps = fixed, window, eps
        mask = torch.ones_like(fixed) if mask is None else mask.expand_as(fixed)
        self._weight = mask / (mask.sum(dim=(1, 2, 3, 4), keepdim=True).clamp(min=1e-6) * len(fixed))
        self._mean, square = _local_mean(torch.cat([fixed, fixed * fixed], dim=1), window).split(1, dim=1)
        self._variance = (square - self._mean.square()).clamp(min=0) + eps

    @torch.no_grad()
    def gradient(self, warped: Tensor) -> Tensor:
        """`d ncc / d warped`, `[B, 1, D, H, W]`, at float32 images of the fixed one's shape."""
        w, f = warped, self.fixed
        mean, ww, wf = _local_mean(torch.cat([w, w * w, w * f], dim=1), self.window).split(1, dim=1)
        covariance, variance = wf - mean * self._mean, (ww - mean.square()).clamp(min=0) + self.eps
        a = 2 * covariance / (variance * self._variance) * self._weight
        b = a * covariance / variance
        parts = torch.cat([a, b, b * mean - a * self._mean], dim=1)
        a, b, rest = _local_mean(parts, self.window, adjoint=True).split(1, dim=1)
        return f * a - w * b + rest


@torch.no_grad()
def ncc_force(warped: Tensor, correlation: Correlation, limit: float = 4.0) -> Tensor:
    """Where to move each voxel for a larger `local_ncc`: its gradient by a displacement at zero, in unit RMS.

    `d/du ncc = (d ncc / d warped) ∇warped`; a network that sees it need not discover it (Qiu et al., "Embedding
    Gradient-Based Optimization in Image Registration Networks", MICCAI 2022).

    Arguments:
        warped: `[B, 1, D, H, W]`.
        correlation: with the fixed image.
        limit: larger components are cut.

    Returns:
        `[B, 3, D, H, W]`, without a gradient of its own.
    """
    with torch.autocast(warped.device.type, enabled=False):
        w = warped.float()
        by_intensity = correlation.gradient(w) * w.numel()
        force = by_intensity * torch.cat(torch.gradient(w, dim=(2, 3, 4)), dim=1)
        rms = force.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
        return (force / (rms + 1e-8)).clamp(-limit, limit)
