"""Geometry is float32 whatever the network's arithmetic: a position in bfloat16 is wrong by a voxel at 200."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Outside of autocast, on every kind of device; also decorates a function."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield
