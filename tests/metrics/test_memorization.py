import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.metrics.distances import pairwise_distances
from cortexgen.metrics.gaussian import gaussian
from cortexgen.metrics.memorization import memorization, nearest_subjects

GRID = (14, 16, 15)


def maps(count, seed):
    """Smooth maps of unit variance, `[count, 1, *GRID]`."""
    noise = gaussian(torch.randn(count, 1, *GRID, generator=torch.Generator().manual_seed(seed)), 1.5)
    return 0.3 * noise / noise.std()


@pytest.fixture(scope="module")
def cohort():
    return maps(20, 0), maps(8, 1), maps(40, 2)


def test_nearest_and_second_nearest_by_hand():
    train = torch.stack([torch.full((1, 2, 2, 2), value) for value in (0.0, 1.0, 4.0)])
    result = nearest_subjects(train, torch.full((1, 1, 2, 2, 2), 1.5), sigma=1.0)
    assert result.subject.tolist() == [1]
    assert result.distance.item() == pytest.approx(0.5)
    assert result.ratio.item() == pytest.approx(0.5 / 1.5)


def test_planted_subjects_and_mirror_images_are_flagged_and_fresh_ones_are_not(cohort):
    train, held_out, fresh = cohort
    generated = torch.cat([fresh, train[3:4], train[7:8].flip(-1), train[5:6] + 0.3 * fresh[:1], 0.6 * train[9:10]])
    result = memorization(train, held_out, generated, sigma=1.0)
    assert result.copies.tolist() == [False] * 40 + [True] * 4
    assert result.generated.subject[-4:].tolist() == [3, 7, 5, 9]
    assert result.generated.mirrored[-4:].tolist() == [False, True, False, False]
    assert result.generated.distance[-4:-2].max() < 1e-6
    assert result.ratio == pytest.approx(1, abs=0.05)
    assert result.ratio == pytest.approx(result.median_generated / result.median_held_out)


def test_without_mirroring_a_mirror_image_is_another_brain(cohort):
    train, held_out, _ = cohort
    assert not memorization(train, held_out, train[7:8].flip(-1), sigma=1.0, mirror=False).copies.any()
    assert memorization(train, held_out, train[7:8], sigma=1.0, mirror=False).copies.all()


def test_a_brain_without_variance_is_near_to_several_subjects_but_no_copy(cohort):
    train, held_out, fresh = cohort
    amplitudes = torch.linspace(0.3, 1, 20).view(-1, 1, 1, 1, 1)
    result = memorization(amplitudes * train, held_out, 0.01 * fresh, sigma=1.0)
    assert result.ratio < 0.5
    assert result.generated.ratio.min() > 0.5
    assert not result.copies.any()


def test_a_brain_on_the_side_of_an_outlier_is_no_copy(cohort):
    train, held_out, fresh = cohort
    train = torch.cat([train[:-1], train[-1:] + 5])
    result = memorization(train, held_out, fresh + 5, sigma=1.0)
    assert result.generated.ratio.max() < 0.5
    assert not result.copies.any()


def test_averages_of_two_subjects_are_no_copies(cohort):
    train, held_out, _ = cohort
    result = memorization(train, held_out, (train[::2] + train[1::2]) / 2, sigma=1.0)
    assert not result.copies.any() and result.generated.ratio.min() > 0.9


def test_a_symmetric_subject_is_not_its_own_second_neighbour(cohort):
    train = (cohort[0] + cohort[0].flip(-1)) / 2
    result = nearest_subjects(train, train[:4] + 0.01, sigma=0)
    assert result.subject.tolist() == [0, 1, 2, 3]
    assert result.ratio.max() < 0.1


def test_distances_are_those_of_smoothed_maps_in_the_mask(cohort):
    train, held_out, _ = cohort
    mask = torch.zeros(1, *GRID)
    mask[:, 3:-3, 4:-4, 2:-5] = 1
    cut = (slice(None), slice(None), slice(3, -3), slice(4, -4), slice(2, -5))
    smooth = gaussian(torch.cat([train, train.flip(-1)]), 2.0)
    expected = pairwise_distances(gaussian(held_out, 2.0)[cut], smooth[cut]).amin(dim=1)
    torch.testing.assert_close(nearest_subjects(train, held_out, 2.0, mask=mask).distance, expected)


def test_errors_name_what_is_wrong(cohort):
    train, held_out, fresh = cohort
    with pytest.raises(ValueError, match="of one grid"):
        nearest_subjects(train, held_out[..., 1:], sigma=1.0)
    with pytest.raises(UserError, match="2 or more training subjects and 1 or more brains, got 1 and 8"):
        memorization(train[:1], held_out, fresh[:8], sigma=1.0)
    with pytest.raises(UserError, match="got 20 and 0"):
        memorization(train, held_out[:0], fresh, sigma=1.0)
