"""MedSyn's U-Nets: slice by slice, and in three dimensions after that."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from cortexgen.nets.blocks import Attention, Conv3d, groups_for, joined, sinusoidal

FLAT, FULL = (1, 3, 3), (3, 3, 3)  # kernels inside slices, and across them


class _ResBlock(nn.Module):
    """Two convolutions; the time embedding scales and shifts what lies between them."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        margin = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.norm_in = nn.GroupNorm(groups_for(channels_in), channels_in)
        self.conv_in = Conv3d(channels_in, channels_out, kernel, padding=margin)
        self.time = nn.Linear(embedding, 2 * channels_out)
        self.norm_out = nn.GroupNorm(groups_for(channels_out), channels_out)
        self.conv_out = Conv3d(channels_out, channels_out, kernel, padding=margin)
        self.skip = Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.time(embedding)[:, :, None, None, None].chunk(2, dim=1)
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv_out(F.silu(h))


class _Level(nn.Module):
    """Two residual blocks inside slices, then one across them."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        kernels = ((channels_in, FLAT), (channels_out, FLAT), (channels_out, FULL))
        self.blocks = nn.ModuleList(_ResBlock(n, channels_out, embedding, kernel) for n, kernel in kernels)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class _CrossAttention(nn.Module):
    """Voxels `[B, N, C]` ask tokens of the condition, `[B, K, C]`."""

    def __init__(self, channels: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, heads * head_size, bias=False)
        self.to_kv = nn.Linear(channels, 2 * heads * head_size, bias=False)
        self.to_out = nn.Linear(heads * head_size, channels)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_q(x), *self.to_kv(tokens).chunk(2, dim=-1))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Middle(nn.Module):
    """Attention inside each slice, attention to the condition's tokens, and a residual block across slices."""

    def __init__(self, channels: int, embedding: int, tokens: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(channels), Attention(channels, heads, head_size)
        self.cross_norm = nn.LayerNorm(channels) if tokens else None
        self.cross = _CrossAttention(channels, heads, head_size) if tokens else None
        self.block = _ResBlock(channels, channels, embedding, FULL)

    def forward(self, x: Tensor, embedding: Tensor, tokens: Tensor | None) -> Tensor:
        b, _, d, h, w = x.shape
        voxels = rearrange(x, "b c d h w -> (b d) (h w) c")
        voxels = rearrange(voxels + self.attention(self.norm(voxels)), "(b d) n c -> b (d n) c", b=b)
        if self.cross is not None and self.cross_norm is not None:
            voxels = voxels + self.cross(self.cross_norm(voxels), tokens)
        return self.block(rearrange(voxels, "b (d h w) c -> b c d h w", d=d, h=h, w=w), embedding)


class MedSynUNet(nn.Module):
    """Predicts a clean volume from a noisy one, the log-SNR, and a condition (Xu et al., TMI 2024).

    Every level but the last is halved along all axes. The condition is tokens that the middle asks, one a covariate.

    Arguments:
        channels: of the input; the output has one.
        width: channels of the finest level.
        multipliers: of `width`, a level each.
        middle: times that the middle attends.
        tokens, slots: of the condition: covariates, 0 for none, and numbers of each.
        heads, head_size: of the attention.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 160,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        middle: int = 4,
        tokens: int = 0,
        slots: int = 8,
        heads: int = 8,
        head_size: int = 32,
    ) -> None:
        super().__init__()
        widths, embedding = [width * m for m in multipliers], 4 * width
        self.embedding = embedding
        self.log_snr = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.inlet = Conv3d(channels, widths[0], 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for i, w in enumerate(widths):
            self.down.append(_Level(widths[max(i - 1, 0)], w, embedding))
            self.shrink.append(Conv3d(w, w, 3, 2, padding=1) if i + 1 < len(widths) else nn.Identity())
        last = widths[-1]
        self.tokens = nn.Parameter(torch.randn(tokens, slots, last) / slots**0.5) if tokens else None
        self.unknown = nn.Parameter(torch.randn(tokens, last) / slots**0.5) if tokens else None
        self.middle = nn.ModuleList(_Middle(last, embedding, tokens, heads, head_size) for _ in range(middle))
        for i, w in reversed(list(enumerate(widths))):
            self.up.append(_Level(2 * w, w, embedding))
            self.grow.append(Conv3d(w, widths[i - 1], 3, padding=1) if i else nn.Identity())
        self.outlet_norm = nn.GroupNorm(groups_for(widths[0]), widths[0])
        self.outlet = Conv3d(widths[0], 1, 3, padding=1)

    def forward(self, images: Tensor, log_snr: Tensor, condition: Tensor | None = None) -> Tensor:
        """Denoise.

        Arguments:
            images: the noisy one, and what else is known, `[B, channels, D, H, W]`.
            log_snr: `[B]`.
            condition: `[B, tokens * slots]`, zeros where a covariate is unknown.

        Returns:
            x0, `[B, 1, D, H, W]`, float32.
        """
        e = F.silu(self.log_snr(sinusoidal(log_snr, self.embedding, fastest=2.0, slowest=0.02)))
        tokens = None
        if self.tokens is not None and self.unknown is not None and condition is not None:
            known = condition.unflatten(1, self.tokens.shape[:2])
            tokens = torch.einsum("bns,nsc->bnc", known, self.tokens) + self.unknown
        x = self.inlet(images)
        skips = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            x = level(x, e)
            skips.append(x)
            x = shrink(x)
        for block in self.middle:
            x = block(x, e, tokens)
        for level, grow in zip(self.up, self.grow, strict=True):
            x = grow(level(joined(x, skips.pop()), e))
        return self.outlet(F.silu(self.outlet_norm(x))).float()
