"""Local normalized cross-correlation."""

import torch
from torch import Tensor


def _local_mean(volume: Tensor, window: int) -> Tensor:
    """Mean over a cube around each voxel, over what of the cube lies inside the grid.

    One banded matrix an axis: as fast as pooling forwards, faster backwards, and any size will do.
    """
    for axis in (2, 3, 4):
        place = torch.arange(volume.shape[axis], device=volume.device)
        band = ((place[:, None] - place).abs() <= window // 2).float()
        band = band / band.sum(dim=1, keepdim=True)
        volume = volume @ band.T if axis == 4 else (band @ volume.movedim(axis, -2)).movedim(-2, axis)
    return volume


def local_ncc(warped: Tensor, fixed: Tensor, window: int = 9, eps: float = 1e-4, mask: Tensor | None = None) -> Tensor:
    """Squared local cross-correlation, in [0, 1]: `cov² / (var_w var_f)` over cubes (Avants et al., MedIA 2008).

    `eps` is added to each variance, so that flat regions give 0 instead of noise (intensities are about [0, 1]); the
    arithmetic is float32 whatever the autocast.

    Arguments:
        warped, fixed: `[B, 1, D, H, W]`.
        window: side of the cube in voxels, odd.
        mask: `[B or 1, 1, D, H, W]` weights; the mean is taken over all voxels unless given.

    Returns:
        The mean, a scalar; 1 is a perfect local affine relation of intensities.

    Raises:
        ValueError: if the window is even or the shapes differ.
    """
    if window % 2 == 0:
        raise ValueError(f"the window must be odd, got {window}")
    if warped.shape != fixed.shape:
        raise ValueError(f"images differ in shape: {tuple(warped.shape)} and {tuple(fixed.shape)}")
    with torch.autocast(warped.device.type, enabled=False):
        w, f = warped.float(), fixed.float()
        means = _local_mean(torch.cat([w, f, w * w, f * f, w * f], dim=1), window)
        mean_w, mean_f, ww, ff, wf = means.split(1, dim=1)
        covariance = wf - mean_w * mean_f
        var_w = (ww - mean_w.square()).clamp(min=0) + eps
        var_f = (ff - mean_f.square()).clamp(min=0) + eps
        ncc = covariance.square() / (var_w * var_f)
        if mask is None:
            return ncc.mean()
        mask = mask.expand_as(ncc)
        return (ncc * mask).sum() / mask.sum().clamp(min=1e-6)
