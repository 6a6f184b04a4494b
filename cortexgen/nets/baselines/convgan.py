"""The plain convolutional networks of VAE-GAN and alpha-WGAN (Kwon et al., MICCAI 2019), for volumes of any shape.

At 144x192x144 they are those that Wu et al.'s comparison of generators of brain MRI trained.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cortexgen.nets.blocks import Conv3d

SMALLEST = 32  # voxels a side, which five strides of 2 leave one of
LARGEST = 96  # voxels a side that four doublings reach; beyond, the last upsampling is coarser
SLOPE = 0.2
FEWEST = 4  # values that are normalized by their own variance
POOLED = 4  # voxels a side that the variational encoder's linear layers see


def padded_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The volume that the networks work on for one of `shape`."""
    return tuple(max(n, SMALLEST) for n in shape)


class BatchNorm(_BatchNorm):
    """Batch normalization of `[B, C, *]`.

    A few values a channel have no variance worth the name (two of them are 1 and -1, whatever they were): fewer than
    four are normalized by the running mean and variance, which stay as they are.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() < FEWEST * input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def _features(channels: Sequence[int]) -> nn.Sequential:
    """4x4x4 convolutions of stride 2, `[B, 1, D, H, W]` to `[B, channels[-1], D / 16, H / 16, W / 16]`."""
    layers: list[nn.Module] = [Conv3d(1, channels[0], 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    for before, after in itertools.pairwise(channels):
        layers += [Conv3d(before, after, 4, stride=2, padding=1), BatchNorm(after), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class Critic(nn.Module):
    """The discriminator of both, without a sigmoid, and the encoder of alpha-WGAN: numbers of a volume.

    Arguments:
        channels: of four levels.
        out: how many numbers.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512), out: int = 1) -> None:
        super().__init__()
        self.features = _features(channels)
        self.outlet = Conv3d(channels[-1], out, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 1, D, H, W]` to `[B, out]`, the mean over voxels."""
        return self.outlet(self.features(x)).float().mean(dim=(2, 3, 4))


class VariationalEncoder(nn.Module):
    """VAE-GAN's encoder: a normal distribution of codes.

    Arguments:
        channels: of four levels.
        hidden: units of each of the two perceptrons.
        latent: numbers of a code.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512), hidden: int = 2048, latent: int = 1000) -> None:
        super().__init__()
        self.features = _features(channels)
        size = channels[-1] * POOLED**3
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, latent)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[B, 1, D, H, W]` to mean and log-variance, `[B, latent]` each, float32."""
        h = F.adaptive_avg_pool3d(self.features(x).float(), POOLED).flatten(1)
        return self.mean(h).float(), self.log_variance(h).float()


class Generator(nn.Module):
    """The generator of both: a linear layer, four doublings with a 3x3x3 convolution each, and nearest neighbours.

    Up to 96 voxels a side the doublings reach the volume's size, as in the original of 64; larger volumes are made at
    half of it or less, as at 144x192x144: from 4x6x4, the last upsampling by (2.25, 2, 2.25).

    Arguments:
        shape: of the volumes, D, H, W.
        latent: numbers of a code.
        channels: of the levels, coarsest first.
        bias: of the linear layer; without one it is a transposed convolution of a single voxel.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 1000,
        channels: Sequence[int] = (512, 256, 128, 64),
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        # Halves round down: 144 / 32 is 4.
        self.coarse = tuple(max(1, math.ceil(n / (16 * math.ceil(n / LARGEST)) - 0.5)) for n in shape)
        self.inlet = nn.Linear(latent, channels[0] * math.prod(self.coarse), bias=bias)
        self.norm = BatchNorm(channels[0])
        self.levels = nn.ModuleList(
            nn.Sequential(Conv3d(before, after, 3, padding=1, bias=False), BatchNorm(after), nn.ReLU())
            for before, after in itertools.pairwise(channels)
        )
        self.outlet = Conv3d(channels[-1], 1, 3, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """`[B, latent]` to `[B, 1, *shape]` in (-1, 1), float32."""
        x = self.inlet(z).unflatten(1, (-1, *self.coarse)).contiguous(memory_format=torch.channels_last_3d)
        x = F.relu(self.norm(x))
        for level in [*self.levels, self.outlet]:
            x = level(F.interpolate(x, scale_factor=2))
        return F.interpolate(x.float(), size=self.shape).tanh()


class CodeDiscriminator(nn.Module):
    """Alpha-WGAN's critic of codes, with batch normalization as published.

    Arguments:
        latent: numbers of a code.
        hidden: units of the two hidden layers.
    """

    def __init__(self, latent: int = 1000, hidden: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((latent, hidden, hidden)):
            layers += [nn.Linear(before, after), BatchNorm(after), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, 1))

    def forward(self, z: Tensor) -> Tensor:
        """`[B, latent]` to `[B, 1]`, float32."""
        return self.layers(z).float()
