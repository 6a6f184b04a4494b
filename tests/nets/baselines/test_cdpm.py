"""cDPM's network: its size, shapes, and what slices say to one another."""

import pytest
import torch
import torch.nn.functional as F

from cortexgen.nets.baselines.cdpm import SliceUNet, _AcrossSlices


def shaken(net):
    """The network with parameters that nothing is silenced by."""
    torch.manual_seed(0)
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net.eval()


@pytest.fixture(scope="module")
def net():
    return shaken(SliceUNet(8, (1, 2, 2), 1, 4))


def test_the_published_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert sum(p.numel() for p in SliceUNet().parameters()) == pytest.approx(89.4e6, rel=1e-3)


def asked(net, slices, observed=None, places=None, t=40):
    b, s = slices.shape[:2]
    observed = torch.zeros(b, s, dtype=torch.bool) if observed is None else observed
    places = torch.arange(s).expand(b, -1) if places is None else places
    with torch.no_grad():
        return net(slices, observed, places, torch.full((b,), t))


@pytest.mark.parametrize("shape", [(1, 1, 7, 9), (2, 3, 16, 8), (1, 4, 13, 5)])
def test_slices_of_any_size(net, shape):
    torch.manual_seed(0)
    assert asked(net, torch.randn(shape)).shape == shape


def test_an_answer_depends_on_other_slices_what_is_observed_where_and_when(net):
    torch.manual_seed(0)
    slices, places = torch.randn(1, 4, 9, 7), torch.tensor([[3, 4, 9, 20]])
    observed = torch.tensor([[True, False, False, True]])
    answer = asked(net, slices, observed, places)[:, 1]
    other = slices.clone()
    other[:, 3] += 1
    for changed in (
        asked(net, other, observed, places),
        asked(net, slices, ~observed, places),
        asked(net, slices, observed, places + torch.tensor([[0, 0, 0, 9]])),
        asked(net, slices, observed, places, t=900),
    ):
        assert (changed[:, 1] - answer).abs().max() > 1e-5


def test_slices_have_no_order_and_volumes_of_a_batch_nothing_to_do_with_one_another(net):
    torch.manual_seed(0)
    slices, places = torch.randn(2, 4, 9, 7), torch.tensor([[3, 4, 9, 20], [0, 1, 2, 3]])
    observed = torch.tensor([[True, False, False, True], [False, False, True, False]])
    answer, order = asked(net, slices, observed, places), torch.tensor([2, 0, 3, 1])
    turned = asked(net, slices[:, order], observed[:, order], places[:, order])
    torch.testing.assert_close(turned, answer[:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(asked(net, slices[1:], observed[1:], places[1:]), answer[1:], atol=1e-5, rtol=1e-5)


def test_attention_across_slices_is_pytorchs_without_distances_and_the_equation_with_them():
    torch.manual_seed(0)
    b, p, s, c, heads = 2, 3, 4, 8, 2
    net, x, e = _AcrossSlices(c, heads, 6), torch.randn(b, p, s, c), torch.randn(b, s, 6)
    places = torch.tensor([[1, 2, 5, 9], [0, 3, 4, 5]])
    q, k, v = (t.unflatten(-1, (heads, -1)).movedim(-2, 2) for t in net.to_qkv(x).chunk(3, dim=-1))
    rq, rk, rv = (r(places, e).unflatten(-1, (heads, -1)) for r in net.relative)
    expected = torch.zeros(b, p, s, heads, c // heads)
    for i in range(s):
        for h in range(heads):
            scores = [
                ((q[:, :, h, i] + rq[:, None, i, j, h]) * (k[:, :, h, j] + rk[:, None, i, j, h])).sum(-1)
                - (rq[:, None, i, j, h] * rk[:, None, i, j, h]).sum(-1)
                for j in range(s)
            ]
            weights = (torch.stack(scores, dim=-1) / (c // heads) ** 0.5).softmax(dim=-1)
            expected[:, :, i, h] = sum(weights[..., j, None] * (v[:, :, h, j] + rv[:, None, i, j, h]) for j in range(s))
    torch.testing.assert_close(net(x, places, e), net.to_out(expected.flatten(-2)))
    for r in net.relative:
        torch.nn.init.zeros_(r.out.weight)
        torch.nn.init.zeros_(r.out.bias)
    plain = F.scaled_dot_product_attention(q, k, v).movedim(2, -2).flatten(-2)
    torch.testing.assert_close(net(x, places, e), net.to_out(plain))
