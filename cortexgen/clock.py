"""How long a command took, and how many processor seconds."""

import os
import time
from typing import NamedTuple


class Spent(NamedTuple):
    """Wall seconds, and processor seconds of this process and of those that it began and that have ended."""

    wall: float
    processor: float


_starts = [Spent(time.monotonic(), 0.0)]  # of the process's first command: the program imports this first


class Stopwatch:
    """Runs from when it is made; the first one of a process runs since that began."""

    def __init__(self) -> None:
        self.start = _starts.pop() if _starts else _now()

    def spent(self) -> Spent:
        """Until now."""
        now = _now()
        return Spent(now.wall - self.start.wall, now.processor - self.start.processor)


def _now() -> Spent:
    return Spent(time.monotonic(), sum(os.times()[:4]))
