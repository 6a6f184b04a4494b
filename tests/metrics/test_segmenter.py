"""A segmenter learns what its labels say, no more and no less; sizes small enough for seconds."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cortexgen.metrics.segmenter import overlaps, random_patch, segmented, small_unet, train_segmenter

pytestmark = pytest.mark.usefixtures("small_segmenter")
SHAPE = (24, 20, 16)
Pair = tuple[Tensor, Tensor]


def brain(seed: int, moved: int = 0) -> Pair:
    """Two tissues of a blob in air, by a threshold on smooth noise; the labels moved by voxels."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 2.5)
    inside = np.zeros(SHAPE, bool)
    inside[3:-3, 3:-3, 3:-3] = True
    labels = np.where(inside, 1 + (field > np.median(field[inside])), 0)
    noise = 0.02 * np.random.default_rng(seed + 99).standard_normal(SHAPE)
    image = np.where(inside, 0.4 * labels + noise, 0).clip(0, 1)
    labels = np.roll(labels, moved, axis=0)
    return torch.from_numpy(image[None]).float(), torch.from_numpy(labels[None]).long()


def learned(moved: int, steps: int = 120, sides: int = 1, seed: int = 0) -> torch.nn.Module:
    readers = [[lambda k=k: brain(k, moved) for k in range(6 * side, 6 * side + 6)] for side in range(sides)]
    return train_segmenter(readers, 3, steps, seed, precision="32")


def test_right_labels_are_learned_and_wrong_ones_show_by_how_much_they_are_wrong() -> None:
    others = [brain(seed) for seed in range(50, 54)]
    scores = [float(torch.stack([overlaps(net, b, 3) for b in others]).mean()) for net in map(learned, (0, 1, 3))]
    assert scores[0] > 0.93
    assert scores[0] - 0.08 > scores[1] > scores[2] + 0.08


def test_a_seed_is_a_training_and_two_sets_have_half_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, other = (learned(0, 2, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    read: list[str] = []
    real, synthetic = ([lambda n=name, k=k: (read.append(n), brain(k))[1] for k in range(n)] for name, n in
                       (("real", 1), ("synthetic", 50)))  # fmt: skip
    before = torch.random.get_rng_state()
    train_segmenter([real, synthetic], 3, 3, precision="32")
    assert read == ["real", "synthetic"] * 3
    assert torch.equal(before, torch.random.get_rng_state())


def test_patches_lie_in_the_volume_around_its_brain_and_are_filled_up_where_it_is_smaller() -> None:
    image, labels = torch.zeros(1, 20, 12, 16), torch.zeros(1, 20, 12, 16, dtype=torch.long)
    image[0, 14, 6, 9], labels[0, 14, 6, 9] = 0.5, 2
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        patch, classes = random_patch((image, labels), generator)
        assert patch.shape == classes.shape == (1, 16, 16, 16)
        assert classes[patch > 0].tolist() == [2] and 0.5**1.25 <= float(patch.max()) <= 0.5**0.8


def test_a_whole_brain_is_segmented_as_its_network_does_patches() -> None:
    net, (image, labels) = small_unet(3).eval(), brain(0)
    found = segmented(net, image, precision="32")
    assert found.shape == labels.shape
    patch = image[:, :16, :16, :16]
    assert torch.equal(segmented(net, patch, precision="32"), net(patch[None])[0].argmax(dim=0, keepdim=True))
