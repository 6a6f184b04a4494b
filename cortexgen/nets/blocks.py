"""Parts that the networks share."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pad_to_multiple(x: Tensor, multiples: Sequence[int], mode: str = "constant") -> Tensor:
    """Pad the end of each of the three last axes to a multiple, so that voxel indices stay what they were."""
    pad: list[int] = []
    for n, m in zip(reversed(x.shape[-3:]), reversed(multiples), strict=True):
        pad += [0, -n % m]
    return F.pad(x, pad, mode=mode) if any(pad) else x


def sinusoidal(values: Tensor, size: int, fastest: float = 1.0, slowest: float = 1e-4) -> Tensor:
    """Sines and cosines of `values` `[B]` at `size / 2` frequencies, geometric from `fastest` to `slowest`: `[B, size]`."""
    steps = torch.linspace(0, 1, size // 2, dtype=torch.float64, device=values.device)
    frequencies = fastest * (slowest / fastest) ** steps
    phase = values.double()[:, None] * frequencies
    return torch.cat([phase.sin(), phase.cos()], dim=1).float()


def groups_for(channels: int, most: int = 8) -> int:
    """The largest number of groups up to `most` that divides `channels`."""
    return math.gcd(channels, most)


class LinearAttention(nn.Module):
    """Attention of cost linear in the number of positions (Katharopoulos et al., ICML 2020).

    Queries are normalized over channels, keys over positions: `out = softmax(q) (softmax(k)^T v)`.
    Takes and returns `[B, N, C]`.
    """

    def __init__(self, channels: int, heads: int = 4, head_size: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * heads * head_size, bias=False)
        self.to_out = nn.Linear(heads * head_size, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, dim=-1))
        context = k.float().softmax(dim=-2).to(v.dtype).transpose(-1, -2) @ v
        out = q.float().softmax(dim=-1).to(v.dtype) @ context
        return self.to_out(out.transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """Softmax attention over positions, `[B, N, C]` to `[B, N, C]`, with an optional bias `[heads, N, N]`."""

    def __init__(self, channels: int, heads: int = 4, head_size: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * heads * head_size, bias=False)
        self.to_out = nn.Linear(heads * head_size, channels)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, dim=-1))
        mask = None if bias is None else bias.to(q.dtype).unsqueeze(0)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out(out.transpose(1, 2).flatten(2))
