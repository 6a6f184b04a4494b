"""Copies among samples, and who the training subjects are."""

import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.evaluation.copies import find_copies


def _maps(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 1, 6, 7, 8, generator=torch.Generator().manual_seed(seed))


NAMES = [f"sub-{k:02d}" for k in range(12)]
OURS = [f"sub-synth{k}" for k in range(6)]


def test_copies_and_mirrored_copies_are_found_and_named() -> None:
    real, ours = _maps(12, 0), _maps(6, 1)
    ours[1] = real[4] + 0.05 * ours[1]
    ours[5] = real[7].flip(-1) + 0.05 * ours[5]
    for held_out in (set(), {"sub-00", "sub-01", "sub-02"}):
        found = find_copies("fields", (NAMES, real), (OURS, ours), held_out)
        assert [i for i, copy in enumerate(found.result.copies.tolist()) if copy] == [1, 5]
        rows = {row["brain"]: row for row in found.rows()}
        assert (rows["sub-synth1"]["nearest"], rows["sub-synth1"]["mirrored"]) == ("sub-04", False)
        assert (rows["sub-synth5"]["nearest"], rows["sub-synth5"]["mirrored"]) == ("sub-07", True)
        assert found.row()["copies"] == 2
        assert found.row()["train"] == 12 - len(held_out)
        assert [row["distance"] for row in found.rows()] == sorted(row["distance"] for row in found.rows())


@pytest.mark.parametrize(("far", "copies"), [(0.4, 1), (0.6, 0)])
def test_a_copy_is_nearer_than_half_of_what_is_usual(far: float, copies: int) -> None:
    """Independent maps are √2 of a deviation apart."""
    real, ours = _maps(12, 0), _maps(6, 1)
    ours[1] = real[4] + far * 2**0.5 * ours[1]
    assert find_copies("fields", (NAMES, real), (OURS, ours), set()).row()["copies"] == copies


def test_a_copy_of_a_held_out_subject_is_no_copy_of_a_training_subject() -> None:
    real, ours = _maps(12, 0), _maps(6, 1)
    ours[0] = real[2]
    assert find_copies("images", (NAMES, real), (OURS, ours), {"sub-02", "sub-03"}).row()["copies"] == 0
    assert find_copies("images", (NAMES, real), (OURS, ours), {"sub-03"}).row()["copies"] == 1


def test_new_brains_are_as_far_as_the_reference() -> None:
    real, ours = _maps(12, 0), _maps(6, 1)
    for held_out in (set(), set(NAMES[:4])):
        row = find_copies("images", (NAMES, real), (OURS, ours), held_out).row()
        assert row["ratio"] == pytest.approx(1, abs=0.05)
        assert row["copies"] == 0


def test_too_few_training_subjects() -> None:
    with pytest.raises(UserError, match="training subjects"):
        find_copies("images", (NAMES[:2], _maps(2, 0)), (OURS, _maps(6, 1)), set())
