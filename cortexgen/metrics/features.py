"""Features of a cohort for distances between distributions, one volume at a time, and what goes into the network."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from cortexgen.errors import UserError
from cortexgen.metrics.box import cropped

PAPER_BOX, PAPER_GRID = (138, 176, 138), (144, 192, 144)  # x, y, z


def _centred(volume: Tensor, shape: tuple[int, ...], value: float = 0.0) -> Tensor:
    """`[*, X, Y, Z]` cut or padded to a shape about its centre."""
    excess = [(want - have) for want, have in zip(shape, volume.shape[-3:], strict=True)]
    return pad(volume, [n for e in reversed(excess) for n in (e // 2, e - e // 2)], value=value)


def paper_input(volume: Tensor, mask: Tensor | None = None) -> Tensor:
    """A brain as the published evaluation gives it to the network: `[1, 144, 192, 144]` in [-1, 1].

    The axes run left → right, posterior → anterior, inferior → superior there. 138×176×138 voxels are clipped to their
    95th percentile, values up to the 5th become 0, and they are placed in a volume of -1.

    Arguments:
        volume: `[1, D, H, W]` in orientation SAR, isotropic, background 0, any range.
        mask: where any brain of either set is, on the same grid, `[1, D, H, W]` or `[D, H, W]`: its bounding box is
            scaled by one factor to what just fits (all of a set alike). Without it the grid's central voxels are taken.

    Raises:
        ValueError: if the mask is on another grid.
        UserError: if the mask is empty, or 95 % of the box is background.
    """
    volume = volume.float()
    if mask is not None:
        if mask.shape[-3:] != volume.shape[-3:]:
            raise ValueError(f"expected a mask of {tuple(volume.shape[-3:])} voxels, got {tuple(mask.shape)}")
        volume = cropped(volume, mask, "the paper's input")
        factor = min(most / n for most, n in zip(PAPER_BOX[::-1], volume.shape[1:], strict=True))
        size = [round(factor * n) for n in volume.shape[1:]]
        volume = interpolate(volume[None], size, mode="trilinear")[0]
    volume = _centred(volume.permute(0, 3, 2, 1), PAPER_BOX)
    low, high = np.percentile(volume.numpy(force=True), (5, 95)).tolist()
    if high <= 0:
        raise UserError("95 % of the paper's 138×176×138 voxels are background in an image: its scaling divides by 0")
    volume = torch.where(volume <= low, 0, volume.clamp(max=high)) / high
    return _centred(volume * 2 - 1, PAPER_GRID, -1.0)


def standard_input(volume: Tensor) -> Tensor:
    """A brain as MedicalNet was trained: the voxels above 0 have mean 0 and standard deviation 1; background is 0.

    (In training the background was standard normal noise, of which 0 is the mean.)

    Arguments:
        volume: `[1, D, H, W]`, background 0.

    Raises:
        UserError: if the image is constant.
    """
    inside = volume > 0
    values = volume[inside].double()
    if len(values) < 2 or values.min() == values.max():
        raise UserError("an image is constant above 0: nothing to scale")
    return torch.where(inside, (volume - values.mean()) / values.std(), 0).float()


@torch.no_grad()
def extract_features(
    network: nn.Module, volumes: Iterable[Tensor], prepare: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Features of a stream of volumes, one at a time, `[N, F]`, float64 on the CPU.

    Arguments:
        network: from `[1, 1, D, H, W]` to `[1, F]`: `MedicalNet` or `RandomFeatures`.
        volumes: `[1, D, H, W]` each.
        prepare: what is done to each of them before: `paper_input`, `standard_input`, or nothing.

    Raises:
        UserError: if there are no volumes.
    """
    network.eval()
    device = next(iter(network.state_dict().values())).device
    rows = [network((prepare(v) if prepare else v)[None].to(device))[0].double().cpu() for v in volumes]
    if not rows:
        raise UserError("no images to take features of")
    return torch.stack(rows)


def published_real_rows(features: Tensor) -> Tensor:
    """Features of real brains as the published evaluation holds them: the first half of the brains, each twice.

    Its loop gives one brain at a time to an array that it fills two rows at a time.
    """
    return features[torch.arange(len(features)) // 2]
