"""The denoiser of fields: in-plane convolutions, attention along depth."""

import pytest
import torch
from torch import nn

from cortexgen.nets import FieldUNet
from cortexgen.nets.field_unet import _DepthAttention

SMALL = {"width": 8, "multipliers": (1, 2), "spatial_attention": ("linear", "full"), "heads": 2, "head_size": 4}


def awake(seed=0, **options):
    """A small network whose last layer, zero at the start, is drawn at random."""
    torch.manual_seed(seed)
    net = FieldUNet(**{**SMALL, **options})
    nn.init.normal_(net.outlet[-1].weight, std=0.1)
    return net.eval()


@pytest.mark.parametrize("shape", [(5, 9, 11), (1, 7, 6), (4, 16, 16)])
@pytest.mark.parametrize("kinds", [("none", "full"), ("linear", "none")])
def test_any_size_goes(shape, kinds):
    net = awake(spatial_attention=kinds, blocks=2)
    out = net(torch.randn(2, 3, *shape), torch.tensor([20.0, -20.0]))
    assert out.shape == (2, 3, *shape) and out.dtype == torch.float32 and out.isfinite().all()
    assert out.std() > 0


def test_the_output_starts_at_zero():
    torch.manual_seed(0)
    net = FieldUNet(**SMALL, covariates=4)
    assert not net(torch.randn(1, 3, 4, 8, 8), torch.zeros(1), torch.randn(1, 4)).any()


def test_every_convolution_stays_inside_slices_and_depth_keeps_its_size():
    convs = [m for m in FieldUNet().modules() if isinstance(m, nn.Conv3d)]
    assert {c.kernel_size for c in convs} == {(1, 3, 3), (1, 1, 1)}
    assert {c.stride[0] for c in convs} == {1} and {c.stride[1:] for c in convs} == {(1, 1), (2, 2)}


class _NormOfSlices(nn.Module):
    """Group normalization of each slice on its own, in place of the whole volume's."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return torch.stack([self.norm(s) for s in x.unbind(dim=2)], dim=2)


def with_norms_of_slices(module):
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, _NormOfSlices(child))
        else:
            with_norms_of_slices(child)


def changed_slices(net):
    """Which slices of the output notice a change in slice 2 of the input."""
    z = torch.randn(1, 3, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    other = z.clone()
    other[:, :, 2] += torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        difference = (net(other, torch.zeros(1)) - net(z, torch.zeros(1))).abs().amax(dim=(0, 1, 3, 4))
    return (difference > 1e-6).tolist()


def test_slices_meet_in_depth_attention_and_in_the_statistics_of_group_norm_only():
    net = awake()
    with_norms_of_slices(net)
    assert all(changed_slices(net))
    for module in net.modules():
        if isinstance(module, _DepthAttention):
            nn.init.zeros_(module.attention.to_out.weight)
    assert changed_slices(net) == [k == 2 for k in range(6)]


@pytest.mark.parametrize("step", [1, -2, 0])
def test_the_bias_of_depth_attention_belongs_to_the_distance(step):
    layer = _DepthAttention(4, heads=1, head_size=4, reach=8)
    nn.init.zeros_(layer.attention.to_qkv.weight)
    with torch.no_grad():
        layer.attention.to_qkv.weight[8:] = torch.eye(4)  # v is the token, q and k are zero
        layer.attention.to_out.weight.copy_(torch.eye(4))
        layer.attention.to_out.bias.zero_()
        layer.bias[0, 8 + step] = 60.0  # all weight on the slice that lies `step` further
    x = torch.randn(1, 4, 7, 2, 3, generator=torch.Generator().manual_seed(0))
    seen = (layer(x) - x).detach()
    tokens = layer.norm(x.movedim(1, -1)).movedim(-1, 1).detach()
    low, high = max(0, -step), 7 - max(0, step)
    torch.testing.assert_close(seen[:, :, low:high], tokens[:, :, low + step : high + step], atol=1e-5, rtol=0)


def test_distances_beyond_the_reach_share_one_bias():
    torch.manual_seed(0)
    layer = _DepthAttention(4, heads=2, head_size=4, reach=2)
    nn.init.normal_(layer.bias)
    wide = _DepthAttention(4, heads=2, head_size=4, reach=6)
    state = layer.state_dict()
    state["bias"] = torch.nn.functional.pad(state["bias"], (4, 4), mode="replicate")
    wide.load_state_dict(state)
    x = torch.randn(1, 4, 7, 2, 3)
    torch.testing.assert_close(layer(x), wide(x))


def test_noise_level_and_place_matter():
    net, z = awake(), torch.randn(1, 3, 4, 8, 10)
    out = net(z, torch.tensor([3.0]))
    assert (net(z, torch.tensor([-3.0])) - out).abs().max() > 1e-3
    flat = net(torch.zeros(1, 3, 4, 8, 10), torch.zeros(1))
    assert (flat - flat.flip(4)).abs().max() > 1e-3  # left is not right, though the input is the same


@pytest.mark.parametrize("axis", [2, 3, 4])
def test_the_network_knows_where_a_voxel_lies_far_from_the_rim_too(axis):
    """Of a field without content, where nothing else tells one voxel from the next."""
    net, shape = awake(multipliers=(1,), spatial_attention=("none",)), [5, 24, 24]
    middle = net(torch.zeros(1, 3, *shape), torch.zeros(1))[..., 9:15, 9:15].detach()
    assert float(middle.diff(dim=axis).abs().amax()) > 1e-3


def test_covariates_change_the_answer_each_sample_its_own():
    net, z, snr = awake(covariates=5), torch.randn(1, 3, 4, 8, 8).expand(2, -1, -1, -1, -1), torch.zeros(2)
    code = torch.randn(2, 5)
    out = net(z, snr, code)
    assert (out[0] - out[1]).abs().max() > 1e-3
    torch.testing.assert_close(net(z, snr, code.flip(0)), out.flip(0), atol=1e-5, rtol=1e-4)


def test_kinds_of_attention_must_fit_the_levels():
    with pytest.raises(ValueError, match="3 levels need as many kinds of attention"):
        FieldUNet(multipliers=(1, 2, 4), spatial_attention=("none", "full"))


def test_one_sample_is_learned():
    torch.manual_seed(0)
    net = FieldUNet(**SMALL)
    z, target, snr = torch.randn(1, 3, 3, 6, 5), torch.randn(1, 3, 3, 6, 5), torch.tensor([1.0])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(35):
        loss = (net(z, snr) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < losses[0] / 5
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_patches_and_maps_of_place_take_any_size(patch):
    torch.manual_seed(0)
    net = FieldUNet(6, 8, (1, 2), spatial_attention=("none", "full"), heads=2, head_size=4, patch=patch, place=2, out=3)
    z = torch.randn(2, 6, 5, 9, 10)
    assert net(z, torch.zeros(2)).shape == (2, 3, 5, 9, 10)
    torch.nn.init.normal_(net.outlet[-1].weight, std=0.1)
    before = net(z, torch.zeros(2))
    with torch.no_grad():
        net.place[..., :12] += 1  # the left half
    change = (net(z, torch.zeros(2)) - before).abs().amax(dim=(0, 1, 2, 3))
    assert float(change[0]) > 1e-4
