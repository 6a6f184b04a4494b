"""The denoiser of fields: a video-diffusion U-Net, depth standing for time."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cortexgen.nets.blocks import (
    Attention,
    Conv3d,
    LinearAttention,
    from_patches,
    groups_for,
    joined,
    sinusoidal,
    to_patches,
)

LATTICE = 24  # side of the learned maps of place

SpatialAttention = Literal["full", "linear", "none"]


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> Conv3d:
    """A convolution inside slices, 1x3x3."""
    return Conv3d(channels_in, channels_out, (1, 3, 3), (1, stride, stride), (0, 1, 1))


class _ResBlock(nn.Module):
    """Two 1x3x3 convolutions; the condition scales and shifts what lies between them."""

    def __init__(self, channels_in: int, channels_out: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups_for(channels_in), channels_in)
        self.conv_in = _conv(channels_in, channels_out)
        self.condition = nn.Linear(condition, 2 * channels_out)
        self.norm_out = nn.GroupNorm(groups_for(channels_out), channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = _conv(channels_out, channels_out)
        self.skip = Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(self.act(condition))[:, :, None, None, None].chunk(2, dim=1)
        h = self.conv_in(self.act(self.norm_in(x)))
        h = self.norm_out(h) * (1 + scale) + shift
        return self.skip(x) + self.conv_out(self.dropout(self.act(h)))


class _DepthAttention(nn.Module):
    """Softmax attention along depth at each in-plane position, with a learned bias for each distance.

    Its inner tensors, the largest of the network, are computed again for the backward pass instead of kept.
    """

    def __init__(self, channels: int, heads: int, head_size: int, reach: int = 128) -> None:
        super().__init__()
        self.reach = reach
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, heads, head_size)
        self.bias = nn.Parameter(torch.zeros(heads, 2 * reach + 1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return x + checkpoint(self._attend, x, use_reentrant=False, preserve_rng_state=False)
        return x + self._attend(x)

    def _attend(self, x: Tensor) -> Tensor:
        b, _, d, h, w = x.shape
        tokens = rearrange(x, "b c d h w -> (b h w) d c")
        position = torch.arange(d, device=x.device)
        distance = (position[None] - position[:, None]).clamp(-self.reach, self.reach) + self.reach
        out = self.attention(self.norm(tokens), self.bias[:, distance])
        return rearrange(out, "(b h w) d c -> b c d h w", b=b, h=h, w=w)


class _InPlaneAttention(nn.Module):
    """Attention inside each slice, softmax ("full") or linear."""

    def __init__(self, channels: int, heads: int, head_size: int, kind: SpatialAttention) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.attention = (Attention if kind == "full" else LinearAttention)(channels, heads, head_size)

    def forward(self, x: Tensor) -> Tensor:
        b, _, d, h, w = x.shape
        out = self.attention(self.norm(rearrange(x, "b c d h w -> (b d) (h w) c")))
        return x + rearrange(out, "(b d) (h w) c -> b c d h w", b=b, d=d, h=h, w=w)


class _Level(nn.Module):
    """Residual blocks, then attention in the plane, then attention along depth."""

    def __init__(
        self, widths: Sequence[int], condition: int, dropout: float, heads: int, head_size: int, kind: SpatialAttention
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_ResBlock(a, b, condition, dropout) for a, b in itertools.pairwise(widths))
        last = widths[-1]
        self.in_plane = nn.Identity() if kind == "none" else _InPlaneAttention(last, heads, head_size, kind)
        self.depth = _DepthAttention(last, heads, head_size)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, condition)
        return self.depth(self.in_plane(x))


class FieldUNet(nn.Module):
    """Denoises fields: inputs z_t, a covariate vector c and the log-SNR lambda_t.

    Every convolution is 1x3x3; attention in the plane is followed by attention along depth; only H and W are halved
    and doubled (Ho et al., "Video Diffusion Models", 2022, with depth for time). Fields of a template are not
    stationary, so each voxel's place in the grid is an input too.

    Arguments:
        channels: of the field.
        width: channels of the finest level.
        multipliers: of `width`, a level each.
        blocks: residual blocks a level.
        spatial_attention: kind for each level, finest first; "linear" where slices exceed about 16 x 16.
        covariates: size of the covariate vector, 0 for none.
        heads, head_size: of the attention.
        dropout: inside the residual blocks.
        patch: work on blocks of this many voxels a side.
        place: learned maps over the grid that the network sees beside the coordinates, on a lattice of 24 points a
            side and interpolated to any grid.
        out: channels of the output; those of the input unless given.
    """

    def __init__(
        self,
        channels: int = 3,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        spatial_attention: Sequence[SpatialAttention] = ("none", "linear", "full"),
        covariates: int = 0,
        heads: int = 4,
        head_size: int = 16,
        dropout: float = 0.0,
        patch: int = 1,
        place: int = 0,
        out: int | None = None,
    ) -> None:
        super().__init__()
        if len(spatial_attention) != len(multipliers):
            raise ValueError(
                f"{len(multipliers)} levels need as many kinds of attention, got {list(spatial_attention)}"
            )
        widths = [width * m for m in multipliers]
        condition = 4 * width
        self.width, self.patch = width, patch
        self.place = nn.Parameter(0.1 * torch.randn(1, place, LATTICE, LATTICE, LATTICE)) if place else None
        self.log_snr = nn.Sequential(nn.Linear(condition, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.covariates = (
            nn.Sequential(nn.Linear(covariates, condition), nn.SiLU(), nn.Linear(condition, condition))
            if covariates
            else None
        )
        # z, and the three coordinates with their first two sines and cosines
        self.inlet = _conv(channels * patch**3 + 15 + place, widths[0])
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        common: dict[str, Any] = {"condition": condition, "dropout": dropout, "heads": heads, "head_size": head_size}
        levels = list(enumerate(zip(widths, spatial_attention, strict=True)))
        for i, (w, kind) in levels:
            self.down.append(_Level([widths[max(i - 1, 0)], *[w] * blocks], kind=kind, **common))
            self.shrink.append(_conv(w, w, stride=2) if i + 1 < len(widths) else nn.Identity())
        for i, (w, kind) in reversed(levels):
            self.up.append(_Level([2 * w, *[w] * blocks], kind=kind, **common))
            self.grow.append(_conv(w, widths[i - 1]) if i else nn.Identity())
        last = _conv(widths[0], (out or channels) * patch**3)
        self.outlet = nn.Sequential(nn.GroupNorm(groups_for(widths[0]), widths[0]), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, z: Tensor, log_snr: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Denoise.

        Arguments:
            z: `[B, channels, D, H, W]`.
            log_snr: `[B]`.
            covariates: `[B, covariates]`, if the network was made for some.

        Returns:
            `[B, out, D, H, W]`, float32.
        """
        x = to_patches(z, self.patch)
        where = [_coordinates(x)]
        if self.place is not None:
            maps = F.interpolate(self.place, size=x.shape[2:], mode="trilinear", align_corners=True)
            where.append(maps.to(x.dtype).expand(len(x), -1, -1, -1, -1))
        x = self.inlet(torch.cat([x, *where], dim=1))
        condition = self.log_snr(sinusoidal(log_snr, 4 * self.width, fastest=2.0, slowest=0.02))
        if self.covariates is not None and covariates is not None:
            condition = condition + self.covariates(covariates)
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            x = level(x, condition)
            skips.append(x)
            x = shrink(x)
        for level, grow in zip(self.up, self.grow, strict=True):
            x = grow(level(joined(x, skips.pop()), condition))
        return from_patches(self.outlet(x).float(), self.patch, z.shape[2:])


def _coordinates(z: Tensor) -> Tensor:
    """Each voxel's place along the axes in [-1, 1], with its first two sines and cosines, `[B, 15, D, H, W]`."""
    axes = [torch.linspace(-1, 1, n, device=z.device) for n in z.shape[2:]]
    place = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    waves = [f(k * torch.pi * place) for k in (1, 2) for f in (torch.sin, torch.cos)]
    return torch.cat([place, *waves]).to(z.dtype).unsqueeze(0).expand(z.shape[0], -1, -1, -1, -1)
