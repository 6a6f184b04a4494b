"""G: DiffuseMorph's denoising network."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from cortexgen.nets.blocks import Conv3d, LinearAttention, from_patches, groups_for, joined, sinusoidal, to_patches


class Denoised(NamedTuple):
    """G's answer: the noise `[B, 1, D, H, W]` and the features that it is read from, `[B, C, d, h, w]`."""

    noise: Tensor
    features: Tensor


def _normed(channels_in: int, channels_out: int) -> nn.Sequential:
    norm = nn.GroupNorm(groups_for(channels_in, 4), channels_in)
    return nn.Sequential(norm, nn.SiLU(), Conv3d(channels_in, channels_out, 3, padding=1))


class _ResBlock(nn.Module):
    """Two 3x3x3 convolutions with the time embedding added between them, and a skip."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.first = _normed(channels_in, channels_out)
        self.time = nn.Linear(embedding, channels_out)
        self.second = _normed(channels_out, channels_out)
        self.skip = Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(x) + self.time(embedding)[:, :, None, None, None]
        return self.skip(x) + self.second(h)


class DenoisingUNet(nn.Module):
    """Predicts the noise in x_t from (moving, fixed, x_t) and the step t.

    A U-Net of 3x3x3 convolutions with a time embedding and one linear attention in its middle (Kim et al.,
    "DiffuseMorph", ECCV 2022; Saharia et al., "SR3").

    Arguments:
        channels_in: number of input images.
        width: channels of the finest level.
        multipliers: of `width`, a level each; every level but the last is halved in size.
        patch: work on blocks of `patch`³ voxels as channels, so that the finest level is that much coarser (the paper
            has 1); the noise is still predicted voxel by voxel.
    """

    def __init__(
        self, channels_in: int = 3, width: int = 8, multipliers: Sequence[int] = (1, 2, 4, 4), patch: int = 1
    ) -> None:
        super().__init__()
        widths = [width * m for m in multipliers]
        embedding = 4 * width
        self.width, self.patch = width, patch
        self.time = nn.Sequential(nn.Linear(4 * width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.inlet = Conv3d(channels_in * patch**3, widths[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for i, w in enumerate(widths):
            self.down.append(_ResBlock(widths[max(i - 1, 0)], w, embedding))
            self.shrink.append(Conv3d(w, w, 3, stride=2, padding=1) if i + 1 < len(widths) else nn.Identity())
        last = widths[-1]
        self.middle = _ResBlock(last, last, embedding)
        self.attention_norm = nn.GroupNorm(groups_for(last, 4), last)
        self.attention = LinearAttention(last)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for i, w in reversed(list(enumerate(widths))):
            self.up.append(_ResBlock(2 * w, w, embedding))
            self.grow.append(Conv3d(w, widths[i - 1], 3, padding=1) if i else nn.Identity())
        self.outlet = _normed(widths[0], patch**3)

    def forward(self, images: Tensor, t: Tensor) -> Tensor:
        """`images` `[B, channels_in, D, H, W]` in [-1, 1], steps `t` `[B]`; returns eps `[B, 1, D, H, W]`."""
        return self.noise(self.features(images, t), images.shape[2:])

    def noise(self, features: Tensor, shape: Sequence[int]) -> Tensor:
        """The noise `[B, 1, *shape]` that `features` stand for."""
        return from_patches(self.outlet(features), self.patch, shape)

    def features(self, images: Tensor, t: Tensor) -> Tensor:
        """What the noise is read from, `[B, width, d, h, w]`, a voxel for each patch."""
        x = self.inlet(to_patches(images, self.patch))
        e = self.time(sinusoidal(t, 4 * self.width))
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x = block(x, e)
            skips.append(x)
            x = shrink(x)
        x = self.middle(x, e)
        tokens = self.attention_norm(x).flatten(2).transpose(1, 2)
        x = x + self.attention(tokens).transpose(1, 2).reshape_as(x)
        for block, grow in zip(self.up, self.grow, strict=True):
            x = grow(block(joined(x, skips.pop()), e))
        return x
