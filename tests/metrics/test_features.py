import numpy as np
import pytest
import torch
from torch import nn

from cortexgen.errors import UserError
from cortexgen.metrics.features import extract_features, paper_input, published_real_rows, standard_input


class Moments(nn.Module):
    """A network whose features are the mean, the largest and the smallest value."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, volumes):
        flat = self.one * volumes.flatten(1)
        return torch.stack([flat.mean(dim=1), flat.amax(dim=1), flat.amin(dim=1)], dim=1)


def test_the_papers_input_is_its_box_in_its_range():
    rng = np.random.default_rng(0)
    brain = np.zeros((138, 176, 138))  # x, y, z
    brain[20:120, 20:160, 10:130] = rng.random((100, 140, 120)) + 0.2
    low, high = np.percentile(brain, 5), np.percentile(brain, 95)
    expected = np.full((144, 192, 144), -1.0)
    expected[3:141, 8:184, 3:141] = np.where(brain <= low, 0, np.minimum(brain, high)) / high * 2 - 1
    volume = torch.from_numpy(brain.transpose(2, 1, 0).copy())[None]
    given = paper_input(volume)
    assert given.shape == (1, 144, 192, 144) and given.dtype == torch.float32
    np.testing.assert_allclose(given[0], expected, atol=1e-6)
    larger = nn.functional.pad(volume, (6, 6, 10, 10, 4, 4))
    torch.testing.assert_close(paper_input(larger), given)
    torch.testing.assert_close(paper_input(volume[:, 5:-5, 10:-10, 8:-8]), given)  # all of it background
    torch.testing.assert_close(paper_input(3 * volume), given)  # whatever the range


def test_the_papers_input_fits_a_masks_box_into_its_own():
    places = torch.meshgrid(*[torch.arange(n) - c for n, c in ((90, 40), (100, 47), (90, 44))], indexing="ij")
    volume = (1 - torch.stack(places).double().norm(dim=0) / 40).clamp(min=0)[None]
    given = paper_input(volume, volume > 0)
    extents = [int(given[0].amax(dim=axes).gt(-0.98).sum()) for axes in ((1, 2), (0, 2), (0, 1))]
    assert extents == pytest.approx([137] * 3, abs=3)  # a ball of 79 voxels becomes one of 138, in the middle
    centre = torch.nonzero(given[0] > 0.9).double().mean(dim=0)
    assert centre.tolist() == pytest.approx([71.5, 95.5, 71.5], abs=0.6)
    torch.testing.assert_close(paper_input(0.2 * volume, (volume > 0)[0]), given)


def test_the_papers_input_names_what_it_cannot_scale():
    ball = torch.zeros(1, 90, 90, 90)
    ball[:, 40:50, 40:50, 40:50] = 1
    with pytest.raises(UserError, match="95 % of the paper's 138×176×138 voxels are background"):
        paper_input(ball)
    with pytest.raises(UserError, match="mask is empty"):
        paper_input(ball, torch.zeros(90, 90, 90))
    with pytest.raises(ValueError, match=r"expected a mask of \(90, 90, 90\) voxels"):
        paper_input(ball, torch.ones(90, 90, 80))


def test_the_standard_input_has_mean_0_and_deviation_1_in_the_brain():
    volume = torch.zeros(1, 20, 22, 24)
    volume[:, 5:15, 5:15, 5:15] = torch.rand(10, 10, 10) + 0.1
    given = standard_input(volume)
    inside = given[volume > 0]
    assert (float(inside.mean()), float(inside.std())) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert (given[volume == 0] == 0).all()
    torch.testing.assert_close(standard_input(0.3 * volume), given)
    with pytest.raises(UserError, match="constant above 0"):
        standard_input(volume > 0)


def test_features_are_taken_from_a_stream_one_by_one():
    pulled, waiting = [], []

    def stream():
        for k in range(3):
            pulled.append(k)
            yield torch.full((1, 4, 4, 4), float(k)).index_fill(1, torch.tensor([0]), 5.0)

    def double(volume):
        waiting.append(len(pulled))
        return 2 * volume

    features = extract_features(Moments(), stream(), double)
    assert waiting == [1, 2, 3] and features.dtype == torch.float64
    torch.testing.assert_close(features[:, 1:], torch.tensor([[10.0, 0], [10, 2], [10, 4]], dtype=torch.float64))
    with pytest.raises(UserError, match="no images"):
        extract_features(Moments(), [])


def test_quirk_the_published_real_features_are_the_first_half_twice():
    features = torch.arange(6.0)[:, None]
    rows = torch.empty(6, 1)
    for i, row in enumerate(features):
        rows[2 * i : 2 * (i + 1)] = row  # one brain in an array that is filled by twos; past its end nothing happens
    torch.testing.assert_close(published_real_rows(features), rows)
    assert rows.flatten().tolist() == [0, 0, 1, 1, 2, 2]
