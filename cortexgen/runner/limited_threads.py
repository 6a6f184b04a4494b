"""How many threads the libraries take: many processes on one machine must not fight for its cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk
import torch

ITK = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit ITK (SimpleITK, and ANTs unless it has run before) and torch; torch and SimpleITK are set back after it."""
    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    os.environ[ITK] = str(threads)  # ANTs' own ITK reads it when its first filter runs
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])
