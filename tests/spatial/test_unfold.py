"""Unfolding smooths where it folds, and nowhere else."""

import torch

from cortexgen.spatial import folded, folded_cubes, integrate, unfold


def _places(velocity):
    cubes = torch.nonzero(folded_cubes(integrate(velocity, 2))[0]).float() + 0.5
    return cubes if len(cubes) else None


def test_a_fold_goes_and_the_rest_stays():
    velocity = torch.zeros(1, 3, 24, 20, 20)
    velocity[0, 0, 5:7, 5, 5] = torch.tensor([4.0, -4.0])  # two spikes that meet, integrated coarsely
    velocity[0, 1, 18:, 14:, 14:] = 0.2
    assert folded(integrate(velocity, 2)) > 0
    out, rounds = unfold(velocity, _places)
    assert rounds > 0 and folded(integrate(out, 2)) == 0
    assert torch.equal(out[:, :, 17:], velocity[:, :, 17:])
    assert out[0, 0, 5, 5, 5] > 0.1


def test_what_does_not_fold_is_returned_as_it_is():
    velocity = torch.full((1, 3, 6, 6, 6), 0.3)
    out, rounds = unfold(velocity, _places)
    assert out is velocity and rounds == 0


def test_giving_up_is_said():
    everywhere = torch.zeros(1, 3)
    assert unfold(torch.zeros(1, 3, 6, 6, 6), lambda _: everywhere, rounds=3)[1] == -1
