import math

import numpy as np
import pytest
import torch
from torch import nn

from cortexgen.nets.blocks import (
    Attention,
    Conv3d,
    LinearAttention,
    from_patches,
    groups_for,
    joined,
    sinusoidal,
    to_patches,
)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("stride, kernel", [(1, 3), (2, 3), ((1, 2, 2), (1, 3, 3)), (1, 1)])
def test_conv_is_pytorchs_in_value_and_gradient(batch, stride, kernel):
    torch.manual_seed(0)
    padding = 0 if kernel == 1 else (kernel // 2 if isinstance(kernel, int) else (0, 1, 1))
    ours = Conv3d(3, 4, kernel, stride, padding)
    theirs = nn.Conv3d(3, 4, kernel, stride, padding)
    theirs.load_state_dict(ours.state_dict())
    images = [torch.randn(batch, 3, 7, 6, 9, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in "ab"]
    outputs = [conv(image) for conv, image in zip((ours, theirs), images, strict=True)]
    torch.testing.assert_close(*outputs)
    weights = torch.randn(outputs[0].shape)
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, atol=1e-4, rtol=1e-4)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("stride, size", [(1, (2, 3, 4)), (1, (2, 8, 12)), (2, (2, 4, 1))])
def test_gradients_of_a_thin_image_in_bfloat16_read_no_memory_that_nobody_wrote(stride, size):
    torch.manual_seed(0)
    conv, x = Conv3d(16, 16, 3, stride, padding=1), torch.randn(2, 16, *size)

    def gradient():
        junk = [torch.full((n,), float("nan")) for n in (10, 100, 1000, 10000, 30000, 100000)]
        del junk
        conv.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            conv(x).float().square().sum().backward()
        return conv.weight.grad.clone()

    expected = torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]
    for _ in range(5):
        torch.testing.assert_close(gradient(), expected, atol=0.02 * float(expected.abs().max()), rtol=0)


def heads_of(module, x):
    """q, k, v of each head, `[heads, N, head_size]` as float64 arrays, by slicing the projection."""
    size = module.to_qkv.out_features // 3
    projected = x[0].numpy().astype(float) @ module.to_qkv.weight.detach().numpy().astype(float).T
    parts = [projected[:, i * size : (i + 1) * size] for i in range(3)]
    each = size // module.heads
    return [np.stack([p[:, h * each : (h + 1) * each] for h in range(module.heads)]) for p in parts]


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def project(module, heads):
    out = np.concatenate(list(heads), axis=-1)
    return out @ module.to_out.weight.detach().numpy().T + module.to_out.bias.detach().numpy()


@pytest.mark.parametrize("with_bias", [False, True])
def test_attention_is_softmax_of_scaled_products_plus_bias(with_bias):
    torch.manual_seed(0)
    module, x, bias = Attention(10, heads=3, head_size=5), 2 * torch.randn(1, 11, 10), 2 * torch.randn(3, 11, 11)
    q, k, v = heads_of(module, x)
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(5) + (bias.numpy() if with_bias else 0)
    expected = project(module, softmax(scores, -1) @ v)
    np.testing.assert_allclose(module(x, bias if with_bias else None)[0].detach(), expected, atol=1e-5)


def test_linear_attention_is_the_quadratic_formula():
    torch.manual_seed(0)
    module, x = LinearAttention(10, heads=3, head_size=5), 2 * torch.randn(1, 11, 10)
    q, k, v = heads_of(module, x)
    weights = softmax(q, -1) @ softmax(k, -2).transpose(
        0, 2, 1
    )  # N x N, each row sums to 1 over channels and positions
    np.testing.assert_allclose(module(x)[0].detach(), project(module, weights @ v), atol=1e-5)


@pytest.mark.parametrize("kind", [Attention, LinearAttention])
def test_attention_keeps_samples_apart_and_ignores_order(kind):
    torch.manual_seed(0)
    module, x = kind(8), torch.randn(2, 9, 8)
    order = torch.randperm(9)
    out = module(x)
    torch.testing.assert_close(module(x[1:]), out[1:])
    torch.testing.assert_close(module(x[:, order]), out[:, order])


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 6, 7), (1, 8, 3)])
def test_growing_undoes_the_size_of_a_halving(shape):
    full = torch.randn(1, 2, *shape)
    half = full[:, :, ::2, ::2, ::2]
    both = joined(half, full)
    grown = both[:, :2]
    assert grown.shape == full.shape and torch.equal(both[:, 2:], full)
    index = [torch.arange(n) // 2 for n in shape]
    assert torch.equal(grown, half[:, :, index[0]][:, :, :, index[1]][..., index[2]])


def test_sinusoidal_frequencies_run_from_fastest_to_slowest():
    code = sinusoidal(torch.tensor([0.0, 3.0]), 8, fastest=2.0, slowest=0.02)
    frequencies = np.geomspace(2.0, 0.02, 4)
    np.testing.assert_allclose(code[0], [0] * 4 + [1] * 4)
    np.testing.assert_allclose(code[1], np.r_[np.sin(3 * frequencies), np.cos(3 * frequencies)], atol=1e-6)


@pytest.mark.parametrize("channels, groups", [(32, 8), (12, 4), (7, 1), (4, 4)])
def test_groups_divide_the_channels(channels, groups):
    assert groups_for(channels) == groups


@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 3), (1, 2, 9)])
def test_patches_are_blocks_of_voxels(shape):
    x = torch.randn(2, 3, *shape)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 24, *(-(-n // 2) for n in shape))
    assert torch.equal(from_patches(patches, 2, shape), x)
    assert torch.equal(patches[:, 0], x[:, 0, ::2, ::2, ::2])  # the first voxel of each block
    assert to_patches(x, 1) is x
