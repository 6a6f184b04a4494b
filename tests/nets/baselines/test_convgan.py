"""The networks of VAE-GAN and alpha-WGAN: published sizes, shapes, and batch normalization of few values."""

import pytest
import torch
from torch import nn

from cortexgen.nets.baselines import convgan

SMALL = (8, 8, 16, 16)


def millions(network):
    return sum(p.numel() for p in network.parameters()) / 1e6


def test_parameters_are_as_many_as_published():
    shape = (144, 192, 144)
    with torch.device("meta"):
        networks = {
            "VAE-GAN G": (convgan.Generator(shape), 53.9),
            "alpha-WGAN G": (convgan.Generator(shape, bias=False), 53.8),
            "D": (convgan.Critic(), 11.1),
            "VAE-GAN E": (convgan.VariationalEncoder(), 149),
            "alpha-WGAN E": (convgan.Critic(out=1000), 43.8),
            "CD": (convgan.CodeDiscriminator(), 20.9),
        }
    for name, (network, published) in networks.items():
        assert millions(network) == pytest.approx(published, rel=5e-3), name


@pytest.mark.parametrize("shape", [(64, 64, 64), (80, 96, 80), (37, 49, 41)])
def test_any_volume_is_made_and_judged(shape):
    generator = convgan.Generator(shape, 8, SMALL[::-1])
    volume = generator(torch.randn(2, 8))
    assert volume.shape == (2, 1, *shape) and volume.abs().max() < 1
    assert convgan.Critic(SMALL, 5)(volume).shape == (2, 5)
    assert [x.shape for x in convgan.VariationalEncoder(SMALL, 8, 6)(volume)] == [(2, 6)] * 2


@pytest.mark.parametrize(
    ("size", "coarse"), [((64, 64, 64), (4, 4, 4)), ((144, 192, 144), (4, 6, 4)), ((80, 96, 79), (5, 6, 5))]
)
def test_a_volume_grows_from_the_published_one(size, coarse):
    with torch.device("meta"):
        assert convgan.Generator(size).coarse == coarse


def test_the_smallest_volume_is_one_voxel_to_the_last_layer():
    shape = convgan.padded_shape((24, 40, 7))
    assert shape == (32, 40, 32)
    assert convgan.Critic(SMALL)(torch.randn(1, 1, *shape)).shape == (1, 1)


def test_batch_statistics_are_torchs_unless_the_values_are_few():
    ours, theirs = convgan.BatchNorm(3), nn.BatchNorm3d(3)
    x = torch.randn(2, 3, 2, 2, 2)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    few = torch.randn(2, 3)
    expected = (few - ours.running_mean) / (ours.running_var + ours.eps).sqrt()
    before = ours.running_mean.clone()
    torch.testing.assert_close(ours(few), expected)
    assert torch.equal(ours.running_mean, before)
    assert convgan.CodeDiscriminator(4, 8)(torch.randn(1, 4)).isfinite().all()


def test_a_generator_without_bias_starts_with_a_transposed_convolution():
    generator = convgan.Generator((32, 48, 32), 5, SMALL[::-1], bias=False)
    assert generator.coarse == (2, 3, 2)
    weight = generator.inlet.weight.unflatten(0, (16, 2, 3, 2)).movedim(-1, 0)
    z = torch.randn(3, 5)
    expected = nn.functional.conv_transpose3d(z[:, :, None, None, None], weight)
    torch.testing.assert_close(generator.inlet(z).unflatten(1, (16, 2, 3, 2)), expected)
