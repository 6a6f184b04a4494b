"""MONAI's networks of a latent diffusion model."""

import math
from collections.abc import Sequence

from torch import nn

from cortexgen.nets.blocks import Conv3d


def _steady(network: nn.Module) -> nn.Module:
    """The network with its 3D convolutions computed as `Conv3d` does."""
    for part in network.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = Conv3d
    return network


def autoencoder(channels: Sequence[int], latents: int) -> nn.Module:
    """MONAI's AutoencoderKL without attention: `[B, 1, D, H, W]` to `[B, latents, d, h, w]`, and back.

    Each level but the last halves the sides, which must be multiples of that.
    """
    from monai.networks.nets import AutoencoderKL  # MONAI takes a second

    net = AutoencoderKL(
        3,
        channels=channels,
        num_res_blocks=2,
        attention_levels=[False] * len(channels),
        latent_channels=latents,
        norm_num_groups=math.gcd(32, *channels),
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )
    return _steady(net)


def discriminator(channels: int) -> nn.Module:
    """MONAI's PatchDiscriminator of three layers, from so many channels on."""
    from monai.networks.nets import PatchDiscriminator

    return _steady(PatchDiscriminator(3, channels=channels, in_channels=1, num_layers_d=3, norm="INSTANCE"))


def denoiser(channels: Sequence[int], latents: int) -> nn.Module:
    """MONAI's DiffusionModelUNet of latents `[B, latents, d, h, w]`; every level but the finest attends."""
    from monai.networks.nets import DiffusionModelUNet

    attends = [level > 0 for level in range(len(channels))]
    net = DiffusionModelUNet(
        3,
        in_channels=latents,
        out_channels=latents,
        num_res_blocks=2,
        channels=channels,
        attention_levels=attends,
        num_head_channels=[math.gcd(64, n) if a else 0 for n, a in zip(channels, attends, strict=True)],
        norm_num_groups=math.gcd(32, *channels),
    )
    return _steady(net)
