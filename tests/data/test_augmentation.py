"""Turning a registered pair and its field equals registering the turned pair with the turned field."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.transforms import Flipd, Rotate90d
from scipy.ndimage import gaussian_filter

from cortexgen.data.augmentation import VOLUMES, _turn, augment
from cortexgen.io import Grid
from cortexgen.spatial import integrate, mirrored, warp


def flip(sample, axis):
    return _turn(sample, Flipd(VOLUMES, axis, allow_missing_keys=True))


def smooth(seed, channels, shape, sigma, peak):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal((channels, *shape)), (0, *[sigma] * 3))
    return torch.from_numpy(peak * values / np.abs(values).max()).float()


@pytest.fixture
def sample():
    shape = (8, 10, 12)
    moving, velocity = smooth(0, 1, shape, 1, 1.0), smooth(1, 3, shape, 2, 2.0)
    displacement = integrate(velocity[None])[0]
    fixed = warp(moving[None], displacement[None])[0]
    labels = (moving > 0).long()
    warped_labels = warp(labels[None], displacement[None], "nearest")[0]
    return {
        "moving": moving,
        "fixed": fixed,
        "moving_labels": labels,
        "fixed_labels": warped_labels,
        "velocity": velocity,
        "displacement": displacement,
        "name": "sub-01",
    }


def check(turned):
    """Every part of the turned sample still belongs to the others."""
    field = turned["displacement"][None]
    torch.testing.assert_close(warp(turned["moving"][None], field)[0], turned["fixed"], atol=1e-5, rtol=0)
    same = warp(turned["moving_labels"][None], field, "nearest")[0] == turned["fixed_labels"]
    assert same.float().mean() > 0.999  # half-way positions may round to the other side
    torch.testing.assert_close(integrate(turned["velocity"][None])[0], turned["displacement"], atol=1e-5, rtol=0)
    assert turned["name"] == "sub-01"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_pair_is_registered_by_the_flipped_field(sample, axis):
    turned = flip(sample, axis)
    check(turned)
    assert torch.equal(turned["fixed"], sample["fixed"].flip(1 + axis))
    check(sample)  # the given one is left alone
    assert all(
        torch.equal(a, b)
        for a, b in zip(flip(turned, axis).values(), sample.values(), strict=True)
        if torch.is_tensor(a)
    )


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotated_pair_is_registered_by_the_rotated_field(sample, turns):
    turned = _turn(sample, Rotate90d(VOLUMES, turns, (1, 2)))
    check(turned)
    np.testing.assert_array_equal(turned["fixed"], np.rot90(sample["fixed"], turns, axes=(2, 3)))
    back = _turn(turned, Rotate90d(VOLUMES, 4 - turns, (1, 2)))
    assert all(torch.equal(back[key], sample[key]) for key in sample if key != "name")


def test_flipping_w_reflects_world_x_on_a_symmetric_grid(sample):
    affine = np.array([[0, 0, 2, -11], [0, 2, 0, -9], [2, 0, 0, -7], [0, 0, 0, 1.0]])
    assert Grid((8, 10, 12), affine).is_symmetric()
    u, mirrored = (s["displacement"].numpy() for s in (sample, flip(sample, 2)))
    index = np.array([3, 4, 2])
    point = affine @ np.append(index, 1)
    there = np.rint(np.linalg.inv(affine) @ (point * [-1, 1, 1, 1]))[:3].astype(int)
    moved = affine[:3, :3] @ mirrored[(slice(None), *there)]
    np.testing.assert_allclose(moved * [-1, 1, 1], affine[:3, :3] @ u[(slice(None), *index)], atol=1e-6)


def test_mirroring_happens_half_of_the_time_and_turns_everything_together(sample):
    generator = torch.Generator().manual_seed(0)
    mirrored = 0
    for _ in range(60):
        out = augment(sample, "mirror", generator)
        check(out)
        mirrored += torch.equal(out["moving"], sample["moving"].flip(3))
    assert 18 <= mirrored <= 42
    assert augment(sample, "none") is sample


def test_the_papers_kind_gives_all_eight_turns_of_a_slice(sample):
    square = {k: v[..., 1:-1] if isinstance(v, torch.Tensor) else v for k, v in sample.items()}
    generator = torch.Generator().manual_seed(0)
    seen = {augment(square, "paper", generator)["moving"].numpy().tobytes() for _ in range(120)}
    slices = [
        np.rot90(m, k, axes=(2, 3))
        for m in (square["moving"].numpy(), square["moving"].numpy()[..., ::-1])
        for k in range(4)
    ]
    assert seen == {np.ascontiguousarray(s).tobytes() for s in slices}


def test_the_papers_kind_keeps_field_and_images_together():
    shape = (8, 11, 11)
    moving, velocity = smooth(0, 1, shape, 1, 1.0), smooth(1, 3, shape, 2, 2.0)
    displacement = integrate(velocity[None])[0]
    labels = torch.zeros(1, *shape, dtype=torch.int64)
    square = {
        "moving": moving,
        "fixed": warp(moving[None], displacement[None])[0],
        "moving_labels": labels,
        "fixed_labels": labels,
        "velocity": velocity,
        "displacement": displacement,
        "name": "sub-01",
    }
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        check(augment(square, "paper", generator))


def test_the_papers_kind_needs_square_slices(sample):
    with pytest.raises(ValueError, match="square axial slices, got 10 x 12"):
        augment(sample, "paper")


def test_torchs_generator_decides_whatever_else_was_drawn(sample):
    def drawn(seed, generator=None):
        torch.manual_seed(seed)
        np.random.seed(len(str(generator)))
        return [augment(sample, "scanner", generator)["fixed"] for _ in range(4)]

    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))

    assert same(drawn(1), drawn(1)) and not same(drawn(1), drawn(2))  # what seed_everything and loader processes set
    first, second = (drawn(seed, torch.Generator().manual_seed(3)) for seed in (1, 2))
    assert same(first, second)


def test_a_field_alone_is_mirrored_as_the_spatial_part_mirrors_fields(sample):
    seen = {augment({"velocity": sample["velocity"]}, "mirror")["velocity"].numpy().tobytes() for _ in range(20)}
    both = [sample["velocity"], mirrored(sample["velocity"][None])[0]]
    assert seen == {field.numpy().tobytes() for field in both}


def test_another_scanner_changes_the_brain_of_the_fixed_image_alone(sample):
    brain = smooth(5, 1, (8, 10, 12), 2, 1.0).abs() + 0.2
    brain[:, :, :, :4] = 0  # a background
    given = sample | {"fixed": brain}
    rough = []
    for _ in range(30):
        out = augment(given, "scanner")
        turned = not torch.equal(out["moving"], given["moving"])
        expected = flip(given, 2) if turned else given
        assert all(torch.equal(out[key], expected[key]) for key in given if key not in ("name", "fixed"))
        there = expected["fixed"] > 0
        assert not out["fixed"][~there].any() and out["fixed"].min() >= 0 and out["fixed"].max() <= 1
        rough.append(np.corrcoef(out["fixed"][there], expected["fixed"][there])[0, 1])
    assert min(rough) > 0.7 and max(rough) > 0.999  # the same brain, seen differently
    assert np.std(rough) > 1e-3
    assert torch.equal(given["fixed"], brain)


def test_an_image_without_a_brain_is_shown_as_it_is(sample):
    empty = sample | {"fixed": torch.zeros_like(sample["fixed"])}
    assert not augment(empty, "scanner")["fixed"].any()


def test_the_library_of_transforms_is_imported_when_something_is_turned():
    code = "import sys, cortexgen.data.augmentation; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
