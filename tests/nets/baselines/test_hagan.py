"""HA-GAN's networks: published sizes, shapes, slabs that are parts of the whole, and spectral norms."""

import pytest
import torch

from cortexgen.nets.baselines import hagan

GENERATOR = (16, 16, 16, 8, 8, 8)


def millions(network):
    return sum(p.numel() for p in network.parameters()) / 1e6


def test_parameters_are_as_many_as_published():
    shape = (144, 192, 144)
    with torch.device("meta"):
        networks = {
            "G": (hagan.Generator(shape), 52.5),
            "E": (hagan.SlabEncoder(), 0.16),
            "sub-encoder": (hagan.CodeEncoder(shape), 19.7),
        }
    networks["D"] = (hagan.Discriminator(shape), 7.2)  # whose norms need numbers
    for name, (network, published) in networks.items():
        assert millions(network) == pytest.approx(published, rel=0.01), name


@pytest.mark.parametrize(
    ("shape", "padded", "slab"),
    [
        ((144, 192, 144), (144, 192, 144), 24),
        ((80, 96, 80), (80, 96, 80), 16),
        ((24, 30, 25), (32, 32, 32), 16),
        ((79, 95, 81), (80, 96, 84), 16),
        ((150, 190, 150), (168, 192, 152), 28),
    ],
)
def test_a_volume_is_whole_slabs(shape, padded, slab):
    assert hagan.padded_shape(shape) == padded
    assert hagan.slab_size(padded[0]) == slab
    assert padded[0] % slab == 0 == slab % hagan.FINE
    assert hagan.padded_shape(padded) == padded


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 36, 52)])
def test_any_padded_volume_is_made_encoded_and_judged(shape):
    generator = hagan.Generator(shape, 8, GENERATOR, (8, 8)).eval()
    volume, features = generator(torch.randn(2, 8)), generator.features(torch.randn(2, 8))
    quarter = tuple(n // 4 for n in shape)
    assert volume.shape == (2, 1, *shape) and volume.abs().max() < 1
    assert features.shape == (2, 8, *quarter)
    small = generator.small(features)
    assert small.shape == (2, 1, *quarter)
    assert hagan.SlabEncoder((8, 8))(volume).shape == features.shape
    assert hagan.CodeEncoder(shape, 8, (8, 8, 8, 16))(features).shape == (2, 8)
    judge = hagan.Discriminator(shape, (8,) * 5, (8,) * 3, (8, 8))
    slab = volume[:, :, : hagan.slab_size(shape[0])]
    first, last = (judge(slab, small, torch.full((2, 1), place)) for place in (0.0, 1.0))
    assert first.shape == (2, 1) and not torch.equal(first, last)


def test_a_slab_is_a_part_of_the_whole_but_for_its_border_and_the_norm():
    """With the norm's statistics fixed, what a convolution doesn't see the border of is the same."""
    generator = hagan.Generator((48, 32, 32), 8, GENERATOR, (8, 8)).eval()
    generator.middle[1] = torch.nn.Identity()
    with torch.no_grad():
        features = generator.features(torch.randn(1, 8))
        whole, part = generator.large(features), generator.large(features[:, :, 4:8])
    torch.testing.assert_close(part[:, :, 3:-3], whole[:, :, 19:29])


def test_a_discriminators_layers_have_a_spectral_norm_of_1():
    judge = hagan.Discriminator((32, 32, 32), (8,) * 5, (8,) * 3, (8, 8))
    x, small = torch.randn(1, 1, 16, 32, 32), torch.randn(1, 1, 8, 8, 8)
    for _ in range(40):  # of the power method
        judge(x, small, torch.zeros(1, 1))
    weights = [m.weight for m in judge.modules() if isinstance(m, torch.nn.Conv3d | torch.nn.Linear)]
    assert len(weights) == 12
    for weight in weights:
        assert float(torch.linalg.matrix_norm(weight.detach().flatten(1), 2)) == pytest.approx(1, rel=0.03)
