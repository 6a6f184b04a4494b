"""MONAI's networks as they are asked for: sizes of the tutorial's, and arithmetic that a thin volume survives."""

import pytest
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet, PatchDiscriminator

from cortexgen.nets.baselines.latentdiffusion import autoencoder, denoiser, discriminator


@pytest.mark.parametrize(
    ("make", "kind", "millions"),
    [
        (lambda: autoencoder((64, 128, 256), 8), AutoencoderKL, 21.0),
        (lambda: denoiser((256, 256, 512), 8), DiffusionModelUNet, 191.2),
        (lambda: discriminator(32), PatchDiscriminator, 2.8),
    ],
)
def test_the_published_networks_are_monais_with_the_published_number_of_parameters(make, kind, millions):
    with torch.device("meta"):
        net = make()
    assert type(net) is kind
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_latents_are_an_image_shrunk_by_each_level_but_the_last():
    torch.manual_seed(0)
    net = autoencoder((8, 8, 16), 3)
    assert net.encode(torch.rand(1, 1, 8, 12, 16))[0].shape == (1, 3, 2, 3, 4)
    assert net.decode(torch.randn(1, 3, 2, 3, 4)).shape == (1, 1, 8, 12, 16)


def test_bfloat16_gradients_of_thin_latents_are_those_of_float32():
    torch.manual_seed(0)
    net, x = denoiser((8, 16), 3), torch.randn(1, 3, 2, 4, 6)
    for p in net.parameters():  # MONAI's last convolution begins at zero, which would hide the others
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)

    def gradients(dtype):
        net.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            answer = net(x, timesteps=torch.tensor([5]))
        answer.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    exact, fast = gradients(torch.float32), gradients(torch.bfloat16)
    assert (fast - exact).norm() < 0.05 * exact.norm()
