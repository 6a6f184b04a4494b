"""Threads: how many the libraries take, and one for each draw, so that its bytes are the same on any machine."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import SimpleITK as sitk
import torch

ITK = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
MOST = 8  # draws at a time, for the memory that they take

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit ITK (SimpleITK, and ANTs unless it has run before) and torch; torch and SimpleITK are set back after it.

    Many processes on one machine must not fight for its cores.
    """
    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    os.environ[ITK] = str(threads)  # ANTs' own ITK reads it when its first filter runs
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])


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
    count, inference = min(workers(), len(items)), torch.inference_mode(torch.is_inference_mode_enabled())
    with single_thread():
        if count <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(inference(function), items))
