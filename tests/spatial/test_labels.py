"""Label maps on other grids, against one resampled indicator after the other."""

import numpy as np
import pytest
import torch

from cortexgen.spatial import present_labels, resample, resample_labels

NUMBERS = torch.tensor([0, 7, 2035, 12175, 2**31 + 5])
TURN = torch.tensor(
    [[0.9, 0.2, 0.1, -3], [-0.2, 0.95, 0.1, 2], [0.05, -0.1, 1.0, 1], [0, 0, 0, 1]], dtype=torch.float64
)


def diagonal(*sizes, at=(0.0, 0.0, 0.0)):
    affine = torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(at)
    return affine


GRIDS = {
    "coarser": ((9, 8, 10), diagonal(2.0, 2.0, 2.0)),
    "finer": ((25, 30, 21), diagonal(0.7, 0.6, 1.1, at=(1.0, -2.0, 0.3))),
    "coarse and shifted": ((5, 6, 4), diagonal(3.3, 2.7, 4.1, at=(-2.0, 1.0, 0.4))),
    "turned": ((18, 14, 20), TURN),
    "turned and coarse": ((8, 8, 8), TURN @ diagonal(2.4, 2.2, 2.6)),
    "mirrored": ((18, 16, 20), diagonal(1.0, 1.0, -1.0, at=(0.0, 0.0, 19.0))),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_the_largest_of_all_indicators_wins_whatever_the_numbers(kind, smooth):
    shape, affine_to = GRIDS[kind]
    places = smooth(3, (18, 16, 20), 2.5, 1.0).argmax(dim=1)
    places[:, 4:7, 5:9, 6:9], places[:, 12:14, 9:12, 15:] = 3, 4  # small ones, in the middle and at the border
    affine = torch.eye(4, dtype=torch.float64)
    indicators = torch.stack(
        [resample((places == k).float()[None], affine, shape, affine_to)[0, 0] for k in range(len(NUMBERS))]
    )
    found = resample_labels(NUMBERS[places], affine, shape, affine_to)
    two = indicators.sort(dim=0).values[-2:]
    clear = two[1] - two[0] > 1e-5
    assert torch.equal(found[0][clear], NUMBERS[indicators.argmax(dim=0)][clear]) and clear.float().mean() > 0.5


def test_the_numbers_that_occur():
    rng = np.random.default_rng(0)
    for numbers in ([0, 1, 5], [3, 2035], [0, 2**31], [-4, 0, 9]):
        labels = torch.tensor(numbers)[torch.from_numpy(rng.integers(0, len(numbers), (1, 5, 6, 7)))]
        assert present_labels(labels).tolist() == sorted(numbers)
