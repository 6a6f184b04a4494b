"""Draws side by side, a thread each."""

import threading

import pytest
import torch

from cortexgen.runner.threads import MOST, side_by_side, single_thread, workers


@pytest.fixture(params=[1, 3])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_one_thread_inside_and_as_many_as_before_afterwards(count):
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == count
    with pytest.raises(ValueError), single_thread():
        raise ValueError
    assert torch.get_num_threads() == count


def test_as_many_items_at_a_time_as_there_are_threads(count):
    """Each waits for the others: one after another they would wait in vain."""
    barrier = threading.Barrier(count, timeout=60)

    def item(k):
        barrier.wait()
        return k, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert side_by_side(item, range(2 * count)) == [(k, 1, True) for k in range(2 * count)]
    assert torch.get_num_threads() == count


def test_an_error_is_raised_and_threads_are_set_back(count):
    def item(k):
        if k == 1:
            raise ValueError("one")
        return k

    with pytest.raises(ValueError, match="one"):
        side_by_side(item, range(3))
    assert torch.get_num_threads() == count


def test_memory_bounds_the_number(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert workers() == MOST
