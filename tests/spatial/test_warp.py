import time

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from cortexgen.spatial import identity, sample, warp, warp_labels


@pytest.mark.parametrize("padding, scipy_mode", [("border", "nearest"), ("zeros", "grid-constant")])
@pytest.mark.parametrize("shape", [(5, 8, 11), (1, 6, 3)])
def test_linear_sampling_matches_scipy(rng, shape, padding, scipy_mode):
    volume = rng.standard_normal((2, 2, *shape))
    positions = rng.uniform(-2, np.array(shape) + 1, (2, 4, 3, 5, 3)).transpose(0, 4, 1, 2, 3)
    if shape[0] == 1:
        positions[:, 0] = 0
    out = sample(torch.from_numpy(volume).float(), torch.from_numpy(positions), padding=padding)
    expected = [
        [map_coordinates(v, p, order=1, mode=scipy_mode) for v in vs] for vs, p in zip(volume, positions, strict=True)
    ]
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_one_lattice_serves_the_whole_batch(rng):
    volume = torch.from_numpy(rng.standard_normal((3, 1, 4, 5, 6))).float()
    positions = torch.from_numpy(rng.uniform(0, 3, (1, 3, 2, 2, 2))).float()
    separate = torch.cat([sample(v[None], positions) for v in volume])
    torch.testing.assert_close(sample(volume, positions), separate)


def test_nearest_sampling_matches_scipy_and_keeps_integers(rng):
    labels = rng.integers(0, 40, (1, 1, 7, 5, 9))
    positions = rng.uniform(-1, 9, (1, 3, 6, 6, 6))
    out = sample(torch.from_numpy(labels), torch.from_numpy(positions), mode="nearest")
    assert out.dtype == torch.int64
    np.testing.assert_array_equal(out[0, 0], map_coordinates(labels[0, 0], positions[0], order=0, mode="nearest"))


def test_warp_by_whole_voxels_reads_at_p_plus_u(rng):
    moving = torch.from_numpy(rng.standard_normal((1, 2, 7, 8, 9))).float()
    shift = torch.tensor([1.0, -2.0, 3.0]).view(1, 3, 1, 1, 1).expand(1, 3, 7, 8, 9)
    torch.testing.assert_close(warp(moving, shift)[..., :-1, 2:, :-3], moving[..., 1:, :-2, 3:], atol=1e-5, rtol=0)
    assert not warp(moving, shift, padding="zeros")[..., -1, :, :].any()


def test_warp_matches_scipy_for_a_smooth_field(rng, smooth):
    moving, field = rng.standard_normal((9, 12, 7)), smooth(3, (9, 12, 7), 2, 2.5)
    expected = map_coordinates(moving, np.indices(moving.shape) + field[0].numpy(), order=1, mode="nearest")
    np.testing.assert_allclose(warp(torch.from_numpy(moving)[None, None], field)[0, 0], expected, atol=1e-4)


def test_gradient_of_a_warped_ramp_is_its_slope():
    ramp = (identity((6, 7, 8)) * torch.tensor([2.0, -3.0, 5.0]).view(1, 3, 1, 1, 1)).sum(dim=1, keepdim=True)
    field = torch.full((1, 3, 6, 7, 8), 0.3, requires_grad=True)
    warp(ramp, field)[..., 1:-1, 1:-1, 1:-1].sum().backward()
    slopes = field.grad[0, :, 1:-1, 1:-1, 1:-1].flatten(1)
    torch.testing.assert_close(slopes, torch.tensor([[2.0], [-3.0], [5.0]]).expand_as(slopes), atol=1e-3, rtol=0)


@pytest.mark.parametrize("volume, positions", [((4, 4, 4), (1, 3, 4, 4, 4)), ((1, 1, 4, 4, 4), (1, 2, 4, 4, 4))])
def test_sample_rejects_wrong_axes_and_channels(volume, positions):
    with pytest.raises(ValueError, match="expected a volume"):
        sample(torch.zeros(volume), torch.zeros(positions))


def _ball(shape, center, radius):
    return np.linalg.norm(np.indices(shape) - np.reshape(center, (3, 1, 1, 1)), axis=0) <= radius


def test_soft_labels_of_a_shifted_ball_keep_its_volume():
    shape, center, shift = (26, 24, 28), np.array([12.0, 12.0, 13.0]), np.array([1.3, -0.6, 2.45])
    ball = _ball(shape, center, 8.5)
    labels = torch.from_numpy(ball.astype(np.int64))[None, None]
    positions = identity(shape) + torch.from_numpy(shift).float().view(1, 3, 1, 1, 1)
    winner, sums = warp_labels(labels, positions, 2)
    np.testing.assert_allclose(sums[0], [ball.size - ball.sum(), ball.sum()], rtol=1e-6)
    assert (winner[0, 0].numpy() == _ball(shape, center - shift, 8.5)).mean() > 0.99
    assert (winner == sample(labels, positions, mode="nearest")).float().mean() > 0.98


def test_soft_labels_are_the_likeliest_class_of_scipys_indicators(smooth):
    labels = smooth(4, (14, 12, 13), 2.5, 1.0).argmax(dim=1, keepdim=True)
    positions = identity((14, 12, 13)) + smooth(3, (14, 12, 13), 3, 1.5)
    winner, sums = warp_labels(labels, positions, 4)
    indicators = [
        map_coordinates((labels[0, 0] == k).numpy().astype(float), positions[0], order=1, mode="nearest")
        for k in range(4)
    ]
    np.testing.assert_allclose(sums[0], np.sum(indicators, axis=(1, 2, 3)), rtol=1e-4)
    assert sums.sum().item() == pytest.approx(labels.numel(), rel=1e-6)
    assert (winner[0, 0].numpy() == np.argmax(indicators, axis=0)).mean() > 0.999


def test_soft_labels_shifted_by_whole_voxels_are_exact(rng):
    labels = torch.from_numpy(rng.integers(0, 5, (2, 1, 6, 7, 8)))
    positions = identity((6, 7, 8)) + torch.tensor([2.0, 0.0, -1.0]).view(1, 3, 1, 1, 1)
    winner, _ = warp_labels(labels, positions, 5)
    assert torch.equal(winner[..., :-2, :, 1:], labels[..., 2:, :, :-1])


def test_soft_labels_of_two_equal_shares_are_the_smaller_class():
    labels = torch.tensor([3, 3, 1, 1, 0, 0, 2, 2]).view(1, 1, 1, 1, 8).expand(1, 1, 4, 4, 8).contiguous()
    winner, sums = warp_labels(labels, identity((4, 4, 8)) + torch.tensor([0, 0, 0.5]).view(1, 3, 1, 1, 1), 4)
    assert winner[0, 0, 0, 0].tolist() == [3, 1, 1, 0, 0, 0, 2, 2]
    np.testing.assert_allclose(sums[0], np.array([2.0, 2.0, 2.5, 1.5]) * 16)


def test_a_thousand_classes_cost_what_few_do(rng):
    shape = (40, 40, 40)
    blocks = torch.from_numpy(np.indices(shape) // 4).sum(0)
    places = identity(shape) + torch.from_numpy(rng.normal(0, 0.4, (1, 3, *shape))).float()
    seconds = []
    for labels in (blocks % 20, torch.from_numpy(np.ravel_multi_index(np.indices(shape) // 4, (10, 10, 10)))):
        start = time.perf_counter()
        for _ in range(3):
            warp_labels(labels[None, None], places, int(labels.max()) + 1)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 3 * seconds[0] + 0.1
