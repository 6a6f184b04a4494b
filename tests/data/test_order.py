"""The order of training's samples: the same whatever the devices, the batches and the interruptions."""

from itertools import islice

import pytest
import torch

from cortexgen.data.fields import FieldDataModule
from cortexgen.data.order import Order, Place, TrainingSamples
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError

SAMPLES, STEP = 22, 8


def order(batch=1, processes=1, rank=0, epoch=0, seed=3, samples=SAMPLES, **options):
    out = Order(samples, seed, batch * processes, STEP, processes, rank, **options)
    out.set_epoch(epoch)
    return out


def steps(batch, processes, epoch=0):
    """What the optimizer's steps take: a set of places each."""
    shares = [list(order(batch, processes, rank, epoch)) for rank in range(processes)]
    assert all(len(share) == len(order(batch, processes)) for share in shares)
    size = STEP // processes
    return [{place for share in shares for place in share[k : k + size]} for k in range(0, len(shares[0]), size)]


@pytest.mark.parametrize(("batch", "processes"), [(2, 1), (4, 1), (1, 2), (2, 2), (1, 4), (2, 4), (1, 8)])
def test_steps_take_the_same_samples_on_any_devices(batch, processes):
    expected = steps(1, 1)
    assert steps(batch, processes) == expected
    assert [len(step) for step in expected] == [STEP] * 3
    assert {place.index for step in expected for place in step} == set(range(SAMPLES))


def test_batches_side_by_side_are_one_batch():
    alone = list(order(batch=4))
    first, second = (list(order(batch=2, processes=2, rank=rank)) for rank in range(2))
    for k in range(0, len(alone) // 4):
        assert set(alone[4 * k : 4 * k + 4]) == {*first[2 * k : 2 * k + 2], *second[2 * k : 2 * k + 2]}


def test_an_epoch_shows_every_sample_once_and_the_next_ones_otherwise():
    first, second = list(order()), list(order(epoch=1))
    assert sorted(p.index for p in first[:SAMPLES]) == list(range(SAMPLES))
    assert [p.index for p in first] != [p.index for p in second]
    assert not {p.seed for p in first} & {p.seed for p in second} and len({p.seed for p in first}) == len(first)
    assert [p.index for p in order(seed=4)] != [p.index for p in first]
    again = order()
    assert (list(again), list(again)) == (first, second)  # where nobody sets the epoch


def test_a_small_cohorts_epoch_is_filled_to_whole_batches_only():
    assert len(order(samples=5)) == 5
    assert [len(order(samples=5, processes=2, rank=rank)) for rank in range(2)] == [3, 3]


def test_an_epoch_goes_on_after_the_batches_that_are_done():
    for batch, processes in ((1, 1), (2, 1), (1, 2), (2, 2)):
        for rank in range(processes):
            whole = list(order(batch, processes, rank, epoch=2))
            rest = list(order(batch, processes, rank, epoch=2, done=lambda: 3))
            assert rest == whole[3 * batch :]


def test_spread_covers_each_step_evenly_and_is_uniform():
    for epoch in range(4):
        for step in steps(1, 1, epoch):
            spread = torch.tensor(sorted(place.spread for place in step))
            assert torch.allclose(spread.diff(), torch.tensor(1 / STEP), atol=1e-6) and spread[0] < 1 / STEP
    offsets = [min(p.spread for p in step) * STEP for epoch in range(40) for step in steps(1, 1, epoch)]
    assert abs(sum(offsets) / len(offsets) - 0.5) < 0.1 and len(set(offsets)) == len(offsets)


def test_a_place_decides_what_is_random_about_a_sample_whatever_else_was_drawn():
    class Numbers(TrainingSamples):
        def sample(self, index, generator):
            return {"index": index, "number": float(torch.rand((), generator=generator))}

    place, other = islice(order(), 2)
    first = Numbers()[place]
    torch.manual_seed(1)
    assert Numbers()[place] == first and first["index"] == place.index
    moved = Numbers()[Place(place.index, other.seed, place.spread)]
    assert moved["number"] != first["number"] and moved["seed"] != first["seed"]
    assert set(Numbers()[4]) == {"index", "number"}  # an index alone: torch's generator draws


@pytest.mark.parametrize("module", [FieldDataModule, RegistrationDataModule])
@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("batch_size", -1), ("num_workers", -1)])
def test_loaders_that_cannot_be_are_refused(module, option, value):
    with pytest.raises(UserError, match=rf"{option}: expected [01] or more, got {value}"):
        module(root=".", **{option: value})
