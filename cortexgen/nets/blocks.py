"""Parts that the networks share."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """x, voxels repeated along the axes that a stride of 2 halved, odd sizes included, and a skip: `[B, C + c, *]`."""
    for axis, size in enumerate(skip.shape[2:], start=2):
        if x.shape[axis] != size:
            x = x.repeat_interleave(2, dim=axis).narrow(axis, 0, size)
    return torch.cat([x, skip], dim=1)


def to_patches(x: Tensor, size: int) -> Tensor:
    """Blocks of `size`³ voxels as channels, `[B, C, D, H, W]` to `[B, C size³, d, h, w]`; the border is repeated."""
    if size == 1:
        return x
    d, h, w = (-n % size for n in x.shape[2:])
    x = F.pad(x, (0, w, 0, h, 0, d), mode="replicate")
    return rearrange(x, "b c (d i) (h j) (w k) -> b (c i j k) d h w", i=size, j=size, k=size)


def from_patches(x: Tensor, size: int, shape: Sequence[int]) -> Tensor:
    """The inverse of `to_patches`, `[B, C size³, d, h, w]` to `[B, C, *shape]`."""
    x = rearrange(x, "b (c i j k) d h w -> b c (d i) (h j) (w k)", i=size, j=size, k=size)
    d, h, w = shape
    return x[:, :, :d, :h, :w]


def sinusoidal(values: Tensor, size: int, fastest: float = 1.0, slowest: float = 1e-4) -> Tensor:
    """Sines and cosines of `values` `[B]` at `size / 2` geometric frequencies, `[B, size]`."""
    steps = torch.linspace(0, 1, size // 2, dtype=torch.float64, device=values.device)
    frequencies = fastest * (slowest / fastest) ** steps
    phase = values.double()[:, None] * frequencies
    return torch.cat([phase.sin(), phase.cos()], dim=1).float()


def groups_for(channels: int, most: int = 8) -> int:
    """The largest number of groups up to `most` that divides `channels`."""
    return math.gcd(channels, most)


class Conv3d(nn.Conv3d):
    """A 3D convolution that stays fast for one sample, and right for a thin one, on a CPU.

    PyTorch gives a float32 convolution of a batch of 1 whose first four sizes multiply to 20480 or less to an im2col
    kernel, about five times slower than oneDNN's; a second copy of the sample is cheaper than that. Where an axis has
    one or two voxels, oneDNN's bfloat16 gradients of the weights read memory that nobody wrote (3x3x3 at depth 2), or
    write where they may not (a stride of 2 at height 1): such a one is computed in the weights' own precision.
    """

    bias: Tensor  # always there

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        if min(x.shape[2:]) < 3 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self(x.to(self.weight.dtype))
        if x.shape[0] == 1 and x.shape[1:4].numel() <= 20480:
            return super().forward(x.expand(2, -1, -1, -1, -1))[:1]
        return super().forward(x)


class Attention(nn.Module):
    """Softmax attention over positions, `[B, N, C]` to `[B, N, C]`, with an optional bias `[heads, N, N]`."""

    def __init__(self, channels: int, heads: int = 4, head_size: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * heads * head_size, bias=False)
        self.to_out = nn.Linear(heads * head_size, channels)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, dim=-1))
        return self.to_out(self._mixed(q, k, v, bias).transpose(1, 2).flatten(2))

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        mask = None if bias is None else bias.to(q.dtype).unsqueeze(0)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class LinearAttention(Attention):
    """Attention of cost linear in the number of positions (Katharopoulos et al., ICML 2020), without a bias.

    Queries are normalized over channels, keys over positions: `out = softmax(q) (softmax(k)^T v)`.
    """

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        context = k.float().softmax(dim=-2).to(v.dtype).transpose(-1, -2) @ v
        return q.float().softmax(dim=-1).to(v.dtype) @ context
