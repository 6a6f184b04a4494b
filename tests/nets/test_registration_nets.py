"""G and M of stage 1."""

import pytest
import torch

from cortexgen.nets import DenoisingUNet, VelocityHead
from cortexgen.spatial import coarse_shape

SHAPES = [(9, 11, 13), (16, 16, 16), (1, 7, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_denoiser_takes_any_size(shape, batch):
    net = DenoisingUNet(width=4, multipliers=(1, 2, 2))
    out = net(torch.randn(batch, 3, *shape), torch.tensor([0.0, 1999.0][:batch]))
    assert out.shape == (batch, 1, *shape) and out.isfinite().all()


def test_denoiser_looks_at_the_time_and_at_every_input():
    torch.manual_seed(0)
    net = DenoisingUNet(width=4, multipliers=(1, 2))
    x = torch.randn(1, 3, 7, 8, 9)
    out = net(x, torch.tensor([10.0]))
    assert (net(x, torch.tensor([900.0])) - out).abs().max() > 1e-4
    for channel in range(3):
        changed = x.clone()
        changed[:, channel] += torch.randn(7, 8, 9)
        assert (net(changed, torch.tensor([10.0])) - out).abs().max() > 1e-4


def test_denoiser_treats_samples_of_a_batch_apart():
    torch.manual_seed(0)
    net, x, t = DenoisingUNet(width=4, multipliers=(1, 2)), torch.randn(2, 3, 7, 8, 9), torch.tensor([3.0, 800.0])
    torch.testing.assert_close(torch.cat([net(x[:1], t[:1]), net(x[1:], t[1:])]), net(x, t), atol=1e-5, rtol=1e-4)


def test_denoiser_learns_the_noise_of_one_sample():
    torch.manual_seed(0)
    net = DenoisingUNet(width=8, multipliers=(1, 2))
    x, noise, t = torch.randn(1, 3, 8, 9, 10), torch.randn(1, 1, 8, 9, 10), torch.tensor([100.0])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (net(x, t) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0] / 5
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_head_starts_near_the_identity_on_the_coarse_grid(factor, shape):
    torch.manual_seed(0)
    net = VelocityHead(encoder=(4, 8, 8, 8), decoder=(8, 8, 8, 8), refine=(4, 4), field_downsample=factor)
    velocity = net(torch.rand(2, 2, *shape))
    assert velocity.shape == (2, 3, *coarse_shape(shape, factor)) and velocity.dtype == torch.float32
    assert 0 < velocity.abs().max() < 1e-3


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_every_part_of_the_head_learns(factor):
    torch.manual_seed(0)
    net = VelocityHead(encoder=(4, 8, 8, 8), decoder=(8, 8, 8, 8), refine=(4, 4), field_downsample=factor)
    net(torch.rand(1, 2, 17, 18, 19)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


@pytest.mark.parametrize(
    "options", [{"field_downsample": 3}, {"field_downsample": 4, "encoder": (4, 4)}, {"decoder": (8,)}]
)
def test_impossible_heads_are_errors(options):
    with pytest.raises(ValueError, match="field_downsample must be 1, 2 or 4"):
        VelocityHead(**options)
