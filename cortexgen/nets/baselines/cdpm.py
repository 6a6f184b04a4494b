"""cDPM's network: a U-Net of slices that look at one another."""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from cortexgen.nets.blocks import Attention, groups_for, joined, sinusoidal


class _ResBlock(nn.Module):
    """Two 3x3 convolutions; the embedding scales and shifts what lies between them."""

    def __init__(self, channels_in: int, channels_out: int, embedding: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups_for(channels_in, 32), channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.embedding = nn.Linear(embedding, 2 * channels_out)
        self.norm_out = nn.GroupNorm(groups_for(channels_out, 32), channels_out)
        self.conv_out = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.embedding(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv_out(F.silu(h))


class _Distances(nn.Module):
    """A vector for each pair of slices, `[B, S, S, C]`, of how far the second lies from the first, and of the time."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.distance, self.time = nn.Linear(3, channels), nn.Linear(embedding, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, places: Tensor, embedding: Tensor) -> Tensor:
        d = (places[:, None, :] - places[:, :, None]).float()
        ways = torch.stack([d.clamp(min=0).log1p(), (-d).clamp(min=0).log1p(), (d == 0).float()], dim=-1)
        return self.out(F.silu(self.distance(ways) + self.time(embedding).unsqueeze(2)))


class _AcrossSlices(nn.Module):
    """Attention between slices at each place in them, by their distances.

    With vectors r of each pair, weights are the softmax of `(q_i + r^q_ij) · (k_j + r^k_ij) - r^q_ij · r^k_ij`, values
    `v_j + r^v_ij` (Shaw et al., NAACL 2018; Harvey et al., "Flexible diffusion modeling of long videos", NeurIPS 2022).
    """

    def __init__(self, channels: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv, self.to_out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.relative = nn.ModuleList(_Distances(channels, embedding) for _ in range(3))

    def forward(self, x: Tensor, places: Tensor, embedding: Tensor) -> Tensor:
        """`x` `[B, P, S, C]` for P places in the slices, numbers of the slices `[B, S]`, embeddings `[B, S, E]`."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in self.to_qkv(x).chunk(3, dim=-1))
        near_q, near_k, near_v = (net(places, embedding).unflatten(-1, (self.heads, -1)) for net in self.relative)
        scores = torch.einsum("bpihc,bpjhc->bphij", q, k)
        scores = scores + torch.einsum("bpihc,bijhc->bphij", q, near_k)
        scores = scores + torch.einsum("bpjhc,bijhc->bphij", k, near_q)
        weights = (scores.float() / q.shape[-1] ** 0.5).softmax(dim=-1).to(v.dtype)
        mixed = torch.einsum("bphij,bpjhc->bpihc", weights, v) + torch.einsum("bphij,bijhc->bpihc", weights, near_v)
        return self.to_out(mixed.flatten(-2))


class _SliceAttention(nn.Module):
    """Attention across slices, then inside each."""

    def __init__(self, channels: int, embedding: int, head_size: int) -> None:
        super().__init__()
        heads = max(1, channels // head_size)
        self.across_norm = nn.GroupNorm(groups_for(channels, 32), channels)
        self.across = _AcrossSlices(channels, heads, embedding)
        self.inside_norm = nn.GroupNorm(groups_for(channels, 32), channels)
        self.inside = Attention(channels, heads, channels // heads)

    def forward(self, x: Tensor, places: Tensor, embedding: Tensor) -> Tensor:
        b, s = places.shape
        h = x.shape[2]
        columns = rearrange(self.across_norm(x), "(b s) c h w -> b (h w) s c", b=b)
        mixed = self.across(columns, places, embedding.unflatten(0, (b, s)))
        x = x + rearrange(mixed, "b (h w) s c -> (b s) c h w", h=h)
        inside = self.inside(rearrange(self.inside_norm(x), "n c h w -> n (h w) c"))
        return x + rearrange(inside, "n (h w) c -> n c h w", h=h)


class SliceUNet(nn.Module):
    """Predicts the noise in some slices of a volume, given others (Peng et al., MICCAI 2023).

    Each slice goes through a 2D U-Net; in its middle the slices attend to one another. Each is known by its number
    beside the time, since a first set of slices has nothing else that would say where it lies.

    Arguments:
        width: channels of the finest level.
        multipliers: of `width`, a level each, half as fine as the one before.
        blocks: residual blocks a level, on the way down; one more on the way up.
        head_size: channels of a head of attention.
    """

    def __init__(
        self, width: int = 128, multipliers: Sequence[int] = (1, 1, 2, 3, 4), blocks: int = 2, head_size: int = 64
    ) -> None:
        super().__init__()
        widths, embedding = [width * m for m in multipliers], 4 * width
        self.width = width
        self.place = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.inlet = nn.Conv2d(2, width, 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        skips = [width]
        for i, w in enumerate(widths):
            level = nn.ModuleList(_ResBlock(a, w, embedding) for a in [skips[-1], *[w] * (blocks - 1)])
            self.down.append(level)
            skips += [w] * blocks
            if i + 1 < len(widths):
                self.shrink.append(nn.Conv2d(w, w, 3, 2, padding=1))
                skips.append(w)
        last = widths[-1]
        self.middle = nn.ModuleList(_ResBlock(last, last, embedding) for _ in range(2))
        self.attention = _SliceAttention(last, embedding, head_size)
        before = last
        for i, w in reversed(list(enumerate(widths))):
            inputs = [n + skips.pop() for n in [before, *[w] * blocks]]
            self.up.append(nn.ModuleList(_ResBlock(n, w, embedding) for n in inputs))
            self.grow.append(nn.Conv2d(w, w, 3, padding=1) if i else nn.Identity())
            before = w
        self.outlet_norm = nn.GroupNorm(groups_for(width, 32), width)
        self.outlet = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.outlet.weight)

    def forward(self, slices: Tensor, observed: Tensor, places: Tensor, t: Tensor) -> Tensor:
        """Denoise.

        Arguments:
            slices: noisy, or clean where observed, `[B, S, H, W]`.
            observed: `[B, S]`, bool.
            places: numbers of the slices in the volume, `[B, S]`.
            t: step of the diffusion, `[B]`.

        Returns:
            eps, `[B, S, H, W]`, float32; without meaning where observed.
        """
        b, s = places.shape
        seen = observed.to(slices)[:, :, None, None].expand_as(slices)
        x = self.inlet(torch.stack([slices, seen], dim=2).flatten(0, 1))
        code = torch.cat([sinusoidal(n, self.width // 2) for n in (t.repeat_interleave(s), places.flatten())], dim=1)
        e = F.silu(self.place(code))
        skips = [x]
        for level, shrink in itertools.zip_longest(self.down, self.shrink):
            for block in cast(nn.ModuleList, level):
                x = block(x, e)
                skips.append(x)
            if shrink is not None:
                x = shrink(x)
                skips.append(x)
        first, second = self.middle
        x = second(self.attention(first(x, e), places, e), e)
        for level, grow in zip(self.up, self.grow, strict=True):
            for block in cast(nn.ModuleList, level):
                x = block(joined(x, skips.pop()), e)
            x = grow(x)
        return rearrange(self.outlet(F.silu(self.outlet_norm(x))), "(b s) 1 h w -> b s h w", b=b).float()
