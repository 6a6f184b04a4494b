"""M: the VoxelMorph network that turns images and a code into a velocity."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cortexgen.nets.blocks import Conv3d, joined


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(Conv3d(channels_in, channels_out, 3, stride, padding=1), nn.LeakyReLU(0.2))


class VelocityHead(nn.Module):
    """A U-Net whose output lives on the grid of every `field_downsample`-th voxel.

    (Balakrishnan et al., "VoxelMorph", TMI 2019.) Its last convolution starts near zero (std 1e-5), so that training
    starts at the identity.

    Arguments:
        channels_in: the moving image and what else it is given.
        encoder: channels of the levels, each half the size of the one before, from half size on.
        decoder: channels on the way up, the first at the size of the last but one encoder level.
        refine: channels of the convolutions at the output's size.
        field_downsample: 1, 2 or 4.
        channels_coarse: of further input, on the output's grid.
    """

    def __init__(
        self,
        channels_in: int = 2,
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32),
        refine: Sequence[int] = (16, 16),
        field_downsample: int = 2,
        channels_coarse: int = 0,
    ) -> None:
        super().__init__()
        self.level = field_downsample.bit_length() - 1
        ups = len(encoder) - self.level
        if field_downsample not in (1, 2, 4) or ups < 1 or len(decoder) < ups:
            raise ValueError(f"field_downsample must be 1, 2 or 4 with levels to spare, got {field_downsample}")
        self.field_downsample = field_downsample
        sizes = [channels_in, *encoder]
        self.encoder = nn.ModuleList(_conv(a, b, 2) for a, b in itertools.pairwise(sizes))
        self.merge = Conv3d(channels_coarse, sizes[self.level], 1) if channels_coarse else None
        widths = [encoder[-1], *decoder[:ups]]
        pairs = enumerate(itertools.pairwise(widths))
        self.decoder = nn.ModuleList(_conv(a + sizes[-2 - level], b) for level, (a, b) in pairs)
        widths = [widths[-1], *refine]
        self.refine = nn.Sequential(*(_conv(a, b) for a, b in itertools.pairwise(widths)))
        self.flow = Conv3d(widths[-1], 3, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=1e-5)
        nn.init.zeros_(self.flow.bias)

    def forward(self, images: Tensor, coarse: Tensor | None = None) -> Tensor:
        """The velocity.

        Arguments:
            images: `[B, channels_in, D, H, W]`.
            coarse: `[B, channels_coarse, *coarse_shape]`, if there are such channels.

        Returns:
            v, `[B, 3, *coarse_shape]` in voxels of the coarse grid.
        """
        x, skips = images, []
        for level, block in enumerate(self.encoder):
            if level == self.level and self.merge is not None:
                x = x + self.merge(coarse)
            skips.append(x)
            x = block(x)
        for block in self.decoder:
            x = block(joined(x, skips.pop()))
        x = self.refine(x)
        # The last layer is float32: a velocity is added to itself 2^7 times.
        with torch.autocast(images.device.type, enabled=False):
            return self.flow(x.float())
