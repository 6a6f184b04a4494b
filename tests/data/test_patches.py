"""Patches are where they should be, and what a network says of them is what it says of the whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cortexgen.data.patches import PatchSampler, in_patches
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field
from cortexgen.modules import DiffuseMorphModule
from cortexgen.nets import VelocityHead

SHAPE = (21, 26, 23)
GRID = Grid(SHAPE, np.diag([1.0, 1, 1, 1]))
PLACES = torch.from_numpy(np.indices(SHAPE)).float()  # each voxel's own place


def ball(radius=9.5):
    middle = torch.tensor(SHAPE).view(3, 1, 1, 1) / 2
    return (PLACES - middle).norm(dim=0, keepdim=True) < radius


def starts(size, count=200, seed=0, brain=None):
    generator = torch.Generator().manual_seed(seed)
    sampler = PatchSampler(size, GRID, ball() if brain is None else brain)
    patches = [sampler({"moving": PLACES, "fixed": PLACES, "name": "sub-01"}, generator) for _ in range(count)]
    assert all(p["moving"].shape == (3, *size) and torch.equal(p["moving"], p["fixed"]) for p in patches)
    assert all(p["name"] == "sub-01" for p in patches)
    first = torch.stack([p["moving"][:, 0, 0, 0] for p in patches])
    assert all(
        torch.equal(p["moving"] - p["moving"][:, :1, :1, :1], PLACES[:, : size[0], : size[1], : size[2]])
        for p in patches
    )
    return first.long()


def test_patches_are_cut_from_all_images_at_multiples_of_four_mostly_in_the_brain():
    size = (8, 9, 8)
    first = starts(size)
    assert not (first % 4).any()
    assert first.amin(dim=0).tolist() == [0, 0, 0] and first.amax(dim=0).tolist() == [12, 16, 12]  # all that fit
    middle = first + torch.tensor(size) // 2
    inside = ball()[0][tuple(middle.T)].float().mean()
    places = [torch.arange(0, n - s + 1, 4) + s // 2 for n, s in zip(SHAPE, size, strict=True)]
    assert inside > 0.95 and ball()[0][tuple(torch.cartesian_prod(*places).T)].float().mean() < 0.7


def test_the_generator_alone_decides():
    torch.manual_seed(1)
    once = starts((8, 8, 8), 20, seed=3)
    before = torch.rand(1)
    torch.manual_seed(2)
    assert torch.equal(starts((8, 8, 8), 20, seed=3), once) and not torch.equal(starts((8, 8, 8), 20, seed=4), once)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), before)  # and draws of others are left as they were


def test_a_patch_may_be_the_whole_or_lie_where_no_brain_is():
    assert not starts(SHAPE, 3).any()
    assert not (starts((8, 8, 8), 20, brain=torch.zeros(1, *SHAPE, dtype=torch.bool)) % 4).any()


@pytest.mark.parametrize("size", [(8, 8), (8, 8, 24), (0, 8, 8)])
def test_sizes_that_cannot_be_are_refused(size):
    with pytest.raises(UserError, match=r"patch: .*up to those of the grid, \(21, 26, 23\), got"):
        PatchSampler(size, GRID, ball())


def blurred(moving, fixed):
    """A network that sees three voxels far, and answers on every second one."""
    return F.avg_pool3d(moving * fixed, 7, stride=1, padding=3, count_include_pad=False)[..., ::2, ::2, ::2]


def images(*shape, batch=1):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, 1, *shape, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("shape", [(32, 40, 24), (27, 33, 16)])
def test_patches_of_a_local_network_are_the_whole(shape):
    pair = images(*shape, batch=2)
    out, whole = in_patches(blurred, pair, (16, 16, 16), 2, "crop"), blurred(*pair)
    assert out.shape == whole.shape
    d, h, w = (slice(None, n // 2 - 2 if n % 8 else None) for n in shape)  # beyond an image there are zeros
    torch.testing.assert_close(out[:, :, d, h, w], whole[:, :, d, h, w], atol=1e-6, rtol=0)
    torch.testing.assert_close(out, whole, atol=0.6, rtol=0)


@pytest.mark.parametrize("mode, error", [("average", 1.0), ("hann", 0.5)])
def test_overlaps_are_averaged(mode, error):
    pair = images(32, 40, 24)
    whole = blurred(*pair)
    off = {m: (in_patches(blurred, pair, (16, 16, 16), 2, m) - whole).abs().mean() for m in ("average", mode)}
    assert 0 < off[mode] <= error * off["average"]
    constant = in_patches(lambda moving, fixed: torch.ones(1, 3, 16, 16, 16), pair, (16, 16, 16), 1, mode)
    torch.testing.assert_close(constant, torch.ones(1, 3, 32, 40, 24))


def test_patches_of_a_u_net_are_the_whole_where_the_overlap_holds_what_it_sees():
    torch.manual_seed(0)
    head = VelocityHead(2, (4, 8), (8,), (4,), field_downsample=2)
    nn.init.normal_(head.flow.weight, std=1.0)

    def network(moving, fixed):
        return head(torch.cat([moving, fixed], dim=1))

    pair = images(64, 64, 96)
    with torch.no_grad():
        whole = network(*pair)
        out = in_patches(network, pair, (64, 64, 64), 2, "crop")
        soft, narrow = (in_patches(network, pair, (n, n, n), 2) for n in (64, 16))
    size = float(whole.abs().mean())
    assert float((out - whole).abs().max()) < 1e-4 * size
    assert float((soft - whole).abs().mean()) < 0.1 * float((narrow - whole).abs().mean()) > 0.001 * size


@pytest.mark.parametrize("size", [(16, 16), (16, 16, 12), (0, 16, 16)])
def test_halves_must_be_even_numbers_of_coarse_voxels(size):
    with pytest.raises(UserError, match="patch: expected three sizes D, H, W that 8 divides, got"):
        in_patches(blurred, images(32, 32, 32), size, 2)


def test_what_was_trained_on_patches_registers_whole_images_in_patches_too(cohort, verb, tmp_path, monkeypatch):
    seen, step = [], DiffuseMorphModule.training_step
    monkeypatch.setattr(
        DiffuseMorphModule, "training_step", lambda self, b, i: (seen.append(b["fixed"].shape), step(self, b, i))[1]
    )
    common = ("register.yaml", "--data.root", cohort, "--trainer.default_root_dir", tmp_path / "run")
    verb("fit", *common, "--data.patch", "[8, 12, 16]", "--data.batch_size", 2)
    assert set(seen) == {(2, 1, 8, 12, 16)}
    predict = ("predict", *common, "--ckpt_path", "last", "--data.only", "test", "--model.refine", 0, "--output")
    verb(*predict, tmp_path / "whole")
    verb(*predict, tmp_path / "parts", "--model.patch", "[16, 16, 16]")
    whole, parts = (
        [read_field(path) for path in sorted((tmp_path / out).glob("sub-*/anat/*velocity*.nii.gz"))]
        for out in ("whole", "parts")
    )
    assert len(whole) == len(parts) == 1
    (u, grid), (v, other) = whole[0], parts[0]
    assert grid.matches(other) and grid.shape[0] > 8
    alike = float((u * v).sum() / (u.norm() * v.norm()))
    assert 0.5 < alike < 1 and 0.5 < float(v.norm() / u.norm()) < 2  # 16 voxels are fewer than it sees
