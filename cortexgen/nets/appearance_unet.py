"""The denoiser of appearance: a 3D U-Net that knows the brain's shape."""

import itertools
from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cortexgen.nets.blocks import Conv3d, from_patches, joined, sinusoidal, to_patches

FINEST, LARGEST = 0.02, 8.0  # sigma that details are divided by, and what they grow to, in units of the noise


def _unit(x: Tensor) -> Tensor:
    """Each voxel's channels divided by their root mean square, so that a part of a volume is worked on like the whole.

    Norms over voxels (group, instance) would see another mean in a patch than in a brain.
    """
    return F.rms_norm(x.movedim(1, -1), (x.shape[1],), eps=1e-4).movedim(-1, 1)


def _detail(z: Tensor, log_snr: Tensor) -> Tensor:
    """What a noisy state differs by from the means of 3x3x3 voxels, in units of the noise, up to about 8 of them.

    Little noise is a small part of what the network sees of a state, and all of what it is to answer.
    """
    means = z
    for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
        margin = [n // 2 for n in size]
        means = F.avg_pool3d(means, size, stride=1, padding=margin, count_include_pad=False)
    sigma = torch.sigmoid(-log_snr.double()).sqrt().clamp(min=FINEST).to(z).view(-1, 1, 1, 1, 1)
    return LARGEST * torch.tanh((z - means) / (LARGEST * sigma))


class _ResBlock(nn.Module):
    """Two 3x3x3 convolutions; the condition scales and shifts what lies between them."""

    def __init__(self, channels_in: int, channels_out: int, condition: int) -> None:
        super().__init__()
        self.conv_in = Conv3d(channels_in, channels_out, 3, padding=1)
        self.condition = nn.Linear(condition, 2 * channels_out)
        self.conv_out = Conv3d(channels_out, channels_out, 3, padding=1)
        self.skip = Conv3d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(condition)[:, :, None, None, None].chunk(2, dim=1)
        h = _unit(self.conv_in(F.silu(_unit(x))))
        return self.skip(x) + self.conv_out(F.silu(torch.addcmul(shift, h, 1 + scale)))


class _FineBlock(nn.Module):
    """Two 3x3x3 convolutions without norms, which would cost as much at full resolution."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.conv_in, self.conv_out = (Conv3d(channels, channels, 3, padding=1) for _ in range(2))
        self.condition = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(condition)[:, :, None, None, None].chunk(2, dim=1)
        return x + self.conv_out(F.silu(torch.addcmul(shift, self.conv_in(F.silu(x)), 1 + scale)))


def _through(blocks: Iterable[nn.Module], x: Tensor, condition: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, condition)
    return x


def _blocks(widths: Sequence[int], condition: int) -> nn.ModuleList:
    return nn.ModuleList(_ResBlock(a, b, condition) for a, b in itertools.pairwise(widths))


class AppearanceUNet(nn.Module):
    """Denoises a state given an image and labels of the same shape, each voxel's place, a vector and the log-SNR.

    It works on blocks of `patch`³ voxels as channels, and then, with fewer channels, on voxels: what noise looks like
    is learned there once, and not for each voxel of a block. Nothing in it looks at a whole volume: what it says of a
    voxel depends on its surroundings alone.

    Arguments:
        channels: of the state.
        classes: of the labels.
        widths: channels of each level, finest first; each is half as fine as the one before.
        blocks: residual blocks a level, on either way.
        patch: side of the blocks of voxels.
        label_channels: numbers that a class is embedded in.
        covariates: size of the vector, 0 for none.
        fine: channels a voxel at full resolution.
    """

    def __init__(
        self,
        channels: int = 2,
        classes: int = 18,
        widths: Sequence[int] = (64, 96, 128),
        blocks: int = 1,
        patch: int = 2,
        label_channels: int = 4,
        covariates: int = 0,
        fine: int = 16,
    ) -> None:
        super().__init__()
        condition = 4 * widths[0]
        self.patch, self.condition = patch, condition
        self.labels = nn.Embedding(classes, label_channels)
        self.log_snr = nn.Sequential(nn.Linear(condition, condition), nn.SiLU(), nn.Linear(condition, condition))
        self.covariates = nn.Linear(covariates, condition) if covariates else None
        self.inlet = Conv3d((channels + 1 + label_channels) * patch**3 + 3, widths[0], 3, padding=1)
        self.detail = Conv3d(channels * patch**3, widths[0], 3, padding=1)
        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for i, width in enumerate(widths):
            before = widths[max(i - 1, 0)]
            self.down.append(_blocks([before, *[width] * blocks], condition))
            last = i + 1 == len(widths)
            self.shrink.append(nn.Identity() if last else Conv3d(width, width, 3, stride=2, padding=1))
        for i, width in reversed(list(enumerate(widths))):
            self.up.append(_blocks([2 * width, *[width] * blocks], condition))
            self.grow.append(Conv3d(width, widths[i - 1], 1) if i else nn.Identity())
        self.outlet = Conv3d(widths[0], channels * patch**3, 3, padding=1)
        self.lift = Conv3d(widths[0], fine * patch**3, 1)
        self.fine_inlet = Conv3d(2 * channels + 1 + label_channels + fine, fine, 3, padding=1)
        self.fine = nn.ModuleList(_FineBlock(fine, condition) for _ in range(2))
        self.fine_outlet = Conv3d(fine, channels, 3, padding=1)
        for fresh in (self.outlet, self.detail, self.fine_outlet):
            nn.init.zeros_(fresh.weight)

    def forward(
        self, z: Tensor, log_snr: Tensor, image: Tensor, labels: Tensor, place: Tensor, covariates: Tensor | None = None
    ) -> Tensor:
        """Denoise.

        Arguments:
            z: the noisy state, `[B, channels, D, H, W]`.
            log_snr: `[B]`.
            image: `[B, 1, D, H, W]`.
            labels: `[B, 1, D, H, W]`, integers.
            place: of each voxel along three axes, about -1 to 1, `[B, 3, D, H, W]`.
            covariates: `[B, covariates]`, if the network was made for some.

        Returns:
            `[B, channels, D, H, W]`, float32.
        """
        embedded = self.labels(labels[:, 0]).movedim(-1, 1).to(z.dtype)
        seen, detail = torch.cat([z, 2 * image - 1, embedded], dim=1), _detail(z, log_snr)
        where = to_patches(place, self.patch).unflatten(1, (3, -1)).mean(dim=2)
        x = torch.cat([to_patches(seen, self.patch), where], dim=1).contiguous(memory_format=torch.channels_last_3d)
        condition = self.log_snr(sinusoidal(log_snr, self.condition, fastest=2.0, slowest=0.02))
        if self.covariates is not None and covariates is not None:
            condition = condition + self.covariates(covariates)
        condition = F.silu(condition)
        x = self.inlet(x) + self.detail(to_patches(detail, self.patch))
        skips = []
        for down, shrink in zip(self.down, self.shrink, strict=True):
            x = _through(cast(nn.ModuleList, down), x, condition)
            skips.append(x)
            x = shrink(x)
        for up, grow in zip(self.up, self.grow, strict=True):
            x = grow(_through(cast(nn.ModuleList, up), joined(x, skips.pop()), condition))
        x = F.silu(_unit(x))
        coarse, lifted = (from_patches(layer(x), self.patch, z.shape[2:]) for layer in (self.outlet, self.lift))
        fine = torch.cat([seen, detail, lifted.to(z.dtype)], dim=1).contiguous(memory_format=torch.channels_last_3d)
        fine = _through(self.fine, self.fine_inlet(fine), condition)
        return coarse.float() + self.fine_outlet(F.silu(fine)).float()
