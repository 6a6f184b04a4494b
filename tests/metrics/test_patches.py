"""Parts that are copied are found, and new people are flagged as often as is said."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.gaussian import gaussian
from cortexgen.metrics.patches import RATE, nearest_patches, patch_memorization, places

SIZE = 4
MASK = torch.ones(12, 12, 13, dtype=torch.bool)


def people(n: int, seed: int) -> Tensor:
    """What all have in common, and each one's own."""
    common, own = (torch.Generator().manual_seed(k) for k in (99, seed))
    shared = gaussian(torch.randn(1, *MASK.shape, generator=common), 1.0)
    return shared + gaussian(torch.randn(n, *MASK.shape, generator=own), 1.0)


def test_places_fill_a_mask_and_have_mirror_images() -> None:
    mask = MASK.clone()
    mask[:, :, 7:] = False
    found = places(mask, SIZE)
    assert len(found) == 3 * 3 * 2  # two patches of 4 on each side of the middle of 13 reach no further than 1 and 12
    assert {(i, j, 13 - SIZE - k) for i, j, k in found} == set(found)
    assert places(torch.zeros_like(mask), SIZE) == []


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copied_part_is_found_where_it_is_and_whose(mirrored: bool) -> None:
    train, new = people(20, 0), people(3, 1)
    place = places(MASK, SIZE)[5]
    i, j, k = place
    source = train[7].flip(-1) if mirrored else train[7]
    new[1, i : i + SIZE, j : j + SIZE, k : k + SIZE] = 0.5 * source[i : i + SIZE, j : j + SIZE, k : k + SIZE] + 3
    found = nearest_patches(train, new, MASK, SIZE)
    assert int(found.margin.argmax()) == 1 and int(found.subject[1]) == 7 and tuple(found.place[1].tolist()) == place
    assert float(found.correlation[1]) == pytest.approx(1, abs=1e-5)
    result = patch_memorization(train, people(10, 2), new, MASK, SIZE)
    ranks = [1 + int((result.reference.margin >= m).sum()) for m in result.generated.margin]
    assert len(result.reference.margin) == 30 and ranks[1] == 1
    assert result.p.tolist() == pytest.approx([rank / 31 for rank in ranks])
    assert result.flagged.tolist() == [False, True, False] and result.beyond.tolist() == [False, True, False]


def test_margins_are_those_of_numpys_correlations() -> None:
    train, new = people(6, 0), people(2, 1)
    found = nearest_patches(train, new, MASK, SIZE)
    margins = []
    for i, j, k in places(MASK, SIZE):
        cut = np.s_[i : i + SIZE, j : j + SIZE, k : k + SIZE]
        ours = new[0].numpy()[cut].ravel()
        r = [max(np.corrcoef(ours, t.numpy()[cut].ravel())[0, 1] for t in (s, s.flip(-1))) for s in train]
        two = np.sort(r)[-2:]
        margins.append(np.arctanh(two[1]) - np.arctanh(two[0]))
    assert float(found.margin[0]) == pytest.approx(max(margins), rel=1e-4)


def test_training_subjects_are_compared_with_the_others() -> None:
    train = people(5, 0)
    train[3] = train[1]
    found = nearest_patches(train, None, MASK, SIZE)
    assert found.subject[[1, 3]].tolist() == [3, 1] and float(found.correlation[0]) < 0.95


def test_new_people_are_flagged_at_the_stated_rate() -> None:
    flagged, chances = [], []
    for split in range(20):
        everybody = people(100, split)
        result = patch_memorization(everybody[:40], everybody[40:60], everybody[60:], MASK, SIZE)
        flagged.append(float(result.flagged.double().mean()))
        chances.append(result.chance)
    assert RATE / 2 < np.mean(flagged) < RATE * 1.6
    assert sum(c < 0.05 for c in chances) <= 4


def test_blurred_new_people_are_no_copies() -> None:
    train = people(40, 0)
    result = patch_memorization(train, None, gaussian(people(40, 1), 1.5), MASK, SIZE)
    assert result.chance > 0.01
    copied = patch_memorization(train, None, gaussian(train, 0.5), MASK, SIZE)
    assert bool(copied.flagged.all()) and copied.chance < 1e-20


def test_too_few_are_refused() -> None:
    with pytest.raises(UserError, match="2 or more training subjects"):
        nearest_patches(people(1, 0), people(2, 1), MASK, SIZE)
    with pytest.raises(UserError, match="3 or more training subjects"):
        nearest_patches(people(2, 0), None, MASK, SIZE)
    with pytest.raises(UserError, match="no patch of 4 voxels"):
        nearest_patches(people(3, 0), None, MASK & False, SIZE)
