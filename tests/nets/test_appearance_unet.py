"""The network of appearance: what it may see, and what it is shown of small noise."""

import pytest
import torch
from torch import nn

from cortexgen.nets import AppearanceUNet
from cortexgen.nets.appearance_unet import _detail


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = AppearanceUNet(2, 5, (8, 12), covariates=16)
    for parameter in net.parameters():  # also those that begin with zeros
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return net


def inputs(shape, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    z, image, place = (torch.randn(batch, c, *shape, generator=generator) for c in (2, 1, 3))
    labels = torch.randint(5, (batch, 1, *shape), generator=generator)
    return z, torch.full((batch,), 1.5), image, labels, place, torch.randn(batch, 16, generator=generator)


@torch.no_grad()
def test_a_part_is_worked_on_like_the_whole(net):
    z, level, image, labels, place, c = inputs((8, 8, 128))
    whole = net(z, level, image, labels, place, c)
    part = net(*(x[..., :96] if x.ndim == 5 else x for x in (z, level, image, labels, place, c)))
    torch.testing.assert_close(part[..., :48], whole[..., :48], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(part[..., 88:], whole[..., 88:96], atol=1e-3)  # where it sees the border


@torch.no_grad()
def test_samples_of_a_batch_do_not_see_each_other(net):
    many = inputs((8, 12, 16), batch=3)
    alone = net(*(x[1:2] for x in many))
    torch.testing.assert_close(net(*many)[1:2], alone, atol=1e-5 * float(alone.abs().max()), rtol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 9, 11)])
def test_any_size_and_each_input_matters(net, shape):
    given = list(inputs(shape))
    with torch.no_grad():
        before = net(*given)
        assert before.shape == (1, 2, *shape)
        for k in range(6):
            other = list(given)
            other[k] = inputs(shape, seed=1)[k] if k != 1 else torch.full((1,), -2.0)
            assert not torch.allclose(net(*other), before, atol=1e-4)


def test_a_fresh_network_knows_nothing_and_every_parameter_learns():
    torch.manual_seed(1)
    net, given = AppearanceUNet(2, 5, (8, 12), covariates=16), inputs((8, 8, 8))
    assert torch.equal(net(*given), net(inputs((8, 8, 8), seed=1)[0], *given[1:]))
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    for _ in range(4):  # what begins with zeros hides what lies before it
        optimizer.zero_grad()
        (net(*given) - 1).square().mean().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_details_are_in_units_of_the_noise():
    noise = torch.randn(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    smooth = torch.linspace(0, 1, 24).expand(1, 1, 24, 24, 24)  # the means of a slope are its values
    for log_snr in (2.0, 5.0):
        level = torch.tensor([log_snr], dtype=torch.float64)
        sigma = torch.sigmoid(-level).sqrt().float()
        inner = _detail(smooth + sigma * noise, level)[..., 1:-1, 1:-1, 1:-1]
        assert float(inner.std()) == pytest.approx((26 / 27) ** 0.5, rel=0.03)
    edge = torch.zeros(1, 1, 8, 8, 8)
    edge[..., 4:] = 1
    assert float(_detail(edge, torch.tensor([20.0])).abs().max()) <= 8
