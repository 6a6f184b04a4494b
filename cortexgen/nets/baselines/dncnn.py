"""A plain convolutional denoiser."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from cortexgen.nets.blocks import Conv3d


class DnCNN(nn.Sequential):
    """DnCNN (Zhang et al., IEEE TIP 2017) in 3D, as PIRATE has it: convolutions 3x3x3 and ELU, no normalization.

    `[B, C, D, H, W]` in, the noise in it out, likewise; any D x H x W works.

    Arguments:
        channels: C, of what is denoised.
        width: channels between the convolutions.
        depth: how many convolutions.
    """

    def __init__(self, channels: int = 3, width: int = 64, depth: int = 6) -> None:
        sizes = [channels, *[width] * (depth - 1), channels]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [Conv3d(before, after, 3, padding=1), nn.ELU()]
        super().__init__(*layers[:-1])

    def forward(self, field: Tensor) -> Tensor:
        return super().forward(field.contiguous(memory_format=torch.channels_last_3d))
