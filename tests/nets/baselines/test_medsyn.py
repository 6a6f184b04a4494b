"""MedSyn's U-Net: shapes, and which parts see what."""

import pytest
import torch

from cortexgen.nets.baselines.medsyn import FLAT, FULL, MedSynUNet, _CrossAttention, _ResBlock


@pytest.mark.parametrize("shape", [(5, 7, 9), (8, 8, 8), (1, 3, 2), (13, 6, 11)])
def test_volumes_of_any_size(shape):
    torch.manual_seed(0)
    net = MedSynUNet(2, 8, (1, 2, 2), 1)
    assert net(torch.randn(2, 2, *shape), torch.zeros(2)).shape == (2, 1, *shape)


@pytest.mark.parametrize(("kernel", "seen"), [(FLAT, 1), (FULL, 5)])
def test_a_block_stays_inside_slices_or_goes_across_them(kernel, seen):
    torch.manual_seed(0)
    block = _ResBlock(8, 8, 4, kernel)
    block.norm_in, block.norm_out = torch.nn.Identity(), torch.nn.Identity()  # which see everything
    x, e = torch.randn(1, 8, 9, 6, 6), torch.randn(1, 4)
    other = x.clone()
    other[:, :, 4] += 1
    moved = (block(other, e) - block(x, e)).abs().amax(dim=(0, 1, 3, 4)) > 1e-6
    assert moved.sum() == seen and moved[4]


def test_covariates_and_the_noise_have_an_effect_and_unknown_is_not_zero():
    torch.manual_seed(0)
    net = MedSynUNet(1, 8, (1, 2), 2, tokens=2, slots=8).eval()
    x = torch.randn(1, 1, 6, 7, 5)
    vectors = torch.zeros(3, 16)
    vectors[1, 7], vectors[2, 7], vectors[2, 0] = 1, 1, 1.5  # nothing known; at the mean; above it
    with torch.no_grad():
        unknown, mean, above = (net(x, torch.zeros(1), v[None]) for v in vectors)
        noisier = net(x, torch.full((1,), -6.0), vectors[:1])
    for a, b in ((unknown, mean), (mean, above), (unknown, noisier)):
        assert (a - b).abs().max() > 1e-5


def test_cross_attention_is_pytorchs():
    torch.manual_seed(0)
    ours, theirs = _CrossAttention(8, 2, 4), torch.nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    x, tokens = torch.randn(3, 5, 8), torch.randn(3, 2, 8)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.to_q.weight, ours.to_kv.weight]))
        theirs.out_proj.weight.copy_(ours.to_out.weight)
        ours.to_out.bias.zero_()
    torch.testing.assert_close(ours(x, tokens), theirs(x, tokens, tokens)[0])
