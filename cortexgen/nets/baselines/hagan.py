"""The networks of HA-GAN (Sun et al., IEEE JBHI 2022), for volumes of any shape.

Features at a quarter of the resolution are of the whole volume; what is finer is made, encoded and judged a slab of
axial slices at a time.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cortexgen.nets.blocks import Conv3d

FINE = 4  # voxels of the volume in one of the features, a side
SMALLEST = 32  # voxels a side, which five strides of 2 leave one of
THINNEST = 16  # slices of a slab, which four leave one of
SLABS = 6  # of a volume, 24 of 144 slices
COARSE = 4  # voxels a side that a code is first turned into
SLOPE = 0.2


def slab_size(depth: int) -> int:
    """Slices in a slab: a sixth of `depth`, a multiple of 4, 16 at least."""
    return max(THINNEST, FINE * math.ceil(depth / (SLABS * FINE)))


def padded_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The volume that the networks work on for one of `shape`: whole slabs, and multiples of 4, 32 at least."""
    depth, *plane = (FINE * math.ceil(max(n, SMALLEST) / FINE) for n in shape)
    slab = slab_size(depth)
    return (slab * math.ceil(depth / slab), *plane)


def _normed(before: int, after: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    conv = Conv3d(before, after, kernel, stride=stride, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(8, after), nn.ReLU())


class Generator(nn.Module):
    """G^A, a code's features; G^L and G^H, a small whole volume and a large slab of them.

    Arguments:
        shape: of the volume, D, H, W; see `padded_shape`.
        latent: numbers of a code.
        channels: of the five levels up to the features, which are the last, and of the one between these and voxels.
        low: of G^L.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 1024,
        channels: Sequence[int] = (512, 512, 256, 128, 64, 32),
        low: Sequence[int] = (32, 16),
    ) -> None:
        super().__init__()
        quarter = [n // FINE for n in shape]
        self.sizes = [tuple(min(size, n) for n in quarter) for size in (COARSE, 2 * COARSE, 4 * COARSE)]
        self.sizes += [tuple(quarter)] * 2
        self.inlet = nn.Linear(latent, channels[0] * math.prod(self.sizes[0]))
        *wide, features, fine = channels
        self.levels = nn.ModuleList(_normed(a, b) for a, b in itertools.pairwise([channels[0], *wide, features]))
        small = [_normed(a, b) for a, b in itertools.pairwise([features, *low])]
        self.low = nn.Sequential(*small, Conv3d(low[-1], 1, 3, padding=1))
        self.middle = _normed(features, fine)
        self.outlet = Conv3d(fine, 1, 3, padding=1)

    def features(self, z: Tensor) -> Tensor:
        """`[B, latent]` to `[B, C, D / 4, H / 4, W / 4]`."""
        x = self.inlet(z).unflatten(1, (-1, *self.sizes[0])).contiguous(memory_format=torch.channels_last_3d)
        for size, level in zip(self.sizes, self.levels, strict=True):
            x = level(F.interpolate(x, size=size))
        return x

    def small(self, features: Tensor) -> Tensor:
        """Features to a volume at a quarter of the resolution, `[B, 1, d, h, w]` in (-1, 1), float32."""
        return self.low(features).float().tanh()

    def large(self, features: Tensor) -> Tensor:
        """Features, of a slab or of the whole, to voxels: `[B, 1, 4 d, 4 h, 4 w]` in (-1, 1), float32."""
        x = self.middle(F.interpolate(features, scale_factor=2))
        return self.outlet(F.interpolate(x, scale_factor=2)).float().tanh()

    def forward(self, z: Tensor) -> Tensor:
        """`[B, latent]` to the whole volume, `[B, 1, D, H, W]`."""
        return self.large(self.features(z))


class SlabEncoder(nn.Module):
    """E^H: the features of a slab, `[B, 1, D, H, W]` to `[B, C, D / 4, H / 4, W / 4]`."""

    def __init__(self, channels: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        width, features = channels
        self.layers = nn.Sequential(_normed(1, width, 4, 2), _normed(width, width), _normed(width, features, 4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CodeEncoder(nn.Module):
    """E^G: the code of a whole volume's features, `[B, C, D / 4, H / 4, W / 4]` to `[B, latent]`, float32.

    Arguments:
        shape: of the volume.
        latent: numbers of a code.
        channels: of the features, and of three levels.
    """

    def __init__(self, shape: Sequence[int], latent: int = 1024, channels: Sequence[int] = (64, 64, 128, 256)) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_normed(a, b, 4, 2) for a, b in itertools.pairwise(channels)))
        self.outlet = Conv3d(channels[-1], latent, _last([n // (8 * FINE) for n in shape]))

    def forward(self, features: Tensor) -> Tensor:
        return self.outlet(self.layers(features)).float().mean(dim=(2, 3, 4))


def _last(size: Sequence[int]) -> tuple[int, int, int]:
    """Kernel of the last convolution: 4 voxels a side, or as many as there are."""
    d, h, w = (min(4, n) for n in size)
    return d, h, w


def _judge(convs: Sequence[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(layer for conv in convs for layer in (spectral_norm(conv), nn.LeakyReLU(SLOPE))))


class Discriminator(nn.Module):
    """D^H of slabs and D^L of small volumes, with spectral norms; the mean of their logits.

    Arguments:
        shape: of the volume.
        high: channels of five levels of D^H.
        low: of three levels of D^L.
        hidden: of the two layers that follow D^H's.
    """

    def __init__(
        self,
        shape: Sequence[int],
        high: Sequence[int] = (32, 64, 128, 256, 512),
        low: Sequence[int] = (64, 128, 256),
        hidden: Sequence[int] = (128, 64),
    ) -> None:
        super().__init__()
        _, height, width = shape
        a, b, c, d, e = high
        self.high = _judge(
            [
                Conv3d(1, a, 4, stride=2, padding=1),
                Conv3d(a, b, 4, stride=2, padding=1),
                Conv3d(b, c, (2, 4, 4), stride=2, padding=(0, 1, 1)),
                Conv3d(c, d, (2, 4, 4), stride=2, padding=(0, 1, 1)),
                Conv3d(d, e, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1)),
                Conv3d(e, hidden[0], _last((1, height // 32, width // 32))),
            ]
        )
        self.place = nn.Sequential(
            spectral_norm(nn.Linear(hidden[0] + 1, hidden[1])),
            nn.LeakyReLU(SLOPE),
            spectral_norm(nn.Linear(hidden[1], 1)),
        )
        small = [Conv3d(a, b, 4, stride=2, padding=1) for a, b in itertools.pairwise([1, *low])]
        kernel = _last([n // (8 * FINE) for n in shape])
        self.low = nn.Sequential(_judge(small), spectral_norm(Conv3d(low[-1], 1, kernel)))

    def forward(self, slab: Tensor, small: Tensor, place: Tensor) -> Tensor:
        """Logits of being real, `[B, 1]`, float32.

        Arguments:
            slab: `[B, 1, d, H, W]`.
            small: the volume at a quarter of the resolution, `[B, 1, D / 4, H / 4, W / 4]`.
            place: of the slab in the volume, 0 to 1, `[B, 1]`.
        """
        seen = self.high(slab).float().mean(dim=(2, 3, 4))
        high, low = self.place(torch.cat([seen, place], dim=1)), self.low(small)
        return (high.float() + low.float().mean(dim=(2, 3, 4))) / 2
