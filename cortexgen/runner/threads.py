"""Threads: one for each draw, so that its bytes are the same on any number of cores, and as many draws at a time."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

MOST = 8  # draws at a time, for the memory that they take

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def single_thread() -> Iterator[None]:
    """Run torch in one thread: how many share a sum decides on its order, and so on its last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers() -> int:
    """How many draws run side by side: as many as torch has threads, 8 at most."""
    return min(torch.get_num_threads(), MOST)


def side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`function` of each item, each in a single thread, `workers()` at a time.

    Raises:
        Exception: the first item's that failed; those that had begun are finished.
    """
    count, inference = min(workers(), len(items)), torch.is_inference_mode_enabled()

    def run(item: T) -> R:
        with torch.inference_mode(inference):
            return function(item)

    with single_thread():
        if count <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(run, items))
