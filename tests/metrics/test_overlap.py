import pytest
import torch

from cortexgen.metrics.overlap import dice


def test_shifted_boxes_have_the_dice_of_their_overlap():
    a, b = torch.zeros(1, 10, 10, 10, dtype=torch.int64), torch.zeros(1, 10, 10, 10, dtype=torch.int64)
    a[:, :4], b[:, 1:5] = 1, 1  # 3 of 4 slices in common
    a[:, 8:], b[:, 7:9] = 2, 2  # 1 of 2
    assert dice(a, b, 3).tolist() == pytest.approx([0.75, 0.5])
    assert torch.equal(dice(a, b, 3), dice(b, a, 3))


def test_sizes_may_differ():
    a = torch.tensor([1, 1, 1, 0, 0])
    b = torch.tensor([0, 0, 1, 0, 0])
    assert dice(a, b, 2).tolist() == pytest.approx([2 * 1 / (3 + 1)])


def test_one_in_one_map_is_zero_and_in_none_is_nan():
    a, b = torch.tensor([0, 1, 1, 4]), torch.tensor([0, 0, 0, 4])
    scores = dice(a, b, 6)
    assert scores[0] == 0 and scores[3] == 1
    assert scores.isnan().tolist() == [False, True, True, False, True]


def test_identical_maps_of_any_integer_type():
    labels = torch.randint(0, 5, (1, 6, 7, 8), generator=torch.Generator().manual_seed(0))
    assert dice(labels, labels.to(torch.uint8), 5).tolist() == [1] * 4
