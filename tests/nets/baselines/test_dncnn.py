"""PIRATE's denoising network."""

import pytest
import torch

from cortexgen.nets.baselines.dncnn import DnCNN


def test_it_has_as_many_parameters_as_the_published_one():
    assert sum(p.numel() for p in DnCNN().parameters()) == 453_059  # "about 453k"
    assert sum(isinstance(layer, torch.nn.Conv3d) for layer in DnCNN()) == 6


@pytest.mark.parametrize("shape", [(9, 12, 7), (1, 2, 3)])
def test_any_size_comes_back(shape):
    torch.manual_seed(0)
    assert DnCNN(width=8)(torch.randn(2, 3, *shape)).shape == (2, 3, *shape)


def test_a_voxel_sees_six_voxels_around_it_and_no_further():
    torch.manual_seed(0)
    net, x = DnCNN(width=8).double(), torch.zeros(1, 3, 17, 17, 17, dtype=torch.float64, requires_grad=True)
    net(x)[0, :, 8, 8, 8].sum().backward()
    seen = x.grad[0].abs().sum(dim=0).nonzero()
    assert seen.min() == 2 and seen.max() == 14
