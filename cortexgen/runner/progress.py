"""How far something is: a bar on a terminal, now and then a line in a log, nothing where it is to be quiet."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import TypeVar, cast

from tqdm import tqdm

from cortexgen.runner.verbosity import first_process, note, verbosity

# A line follows another after so many seconds, if so much of the whole was done meanwhile.
EVERY = ((10.0, 0.05), (60.0, 0.01), (600.0, 0.0))
REFRESH = 0.5  # seconds between two texts beside a bar
T = TypeVar("T")


class Progress:
    """Progress of so many items, as a context.

    Arguments:
        what: is done ("registering").
        total: how many items there are; None where nobody knows.
        unit: what an item is called.
        leave: keep the bar when all is done, and close a log with a line; otherwise lines appear only where it takes
            long.
        begin: items that were done before.
        seconds: that it may take at most, where there is such a limit.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str = "scan",
        leave: bool = True,
        begin: int = 0,
        seconds: float | None = None,
    ) -> None:
        self.what, self.total, self.unit, self.leave, self.seconds = what, total, unit, leave, seconds
        self.begin = self.done = begin
        self._text: Callable[[], str] = str
        self.silent = verbosity() == "quiet" or not first_process()
        self._bar: tqdm | None = None
        if not self.silent and sys.stderr.isatty():
            self._bar = tqdm(desc=what, total=total, unit=unit, leave=leave, initial=begin)
        self._start = self._last = time.monotonic()
        self._shown, self._said = self._share(), False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(kind is None)

    def close(self, done: bool = True) -> None:
        """Nothing more follows; `done` unless it failed."""
        if self._bar is not None:
            self._bar.close()
        elif done and not self.silent and (self._said or self.leave):
            note(f"{self._counted()}, in {duration(time.monotonic() - self._start)}")

    def update(self, done: int = 1, text: Callable[[], str] = str) -> None:
        """So many items more are done; what `text` gives is shown beside their number, and asked for then only."""
        self.done, self._text = self.done + done, text
        if self._bar is not None:
            if (now := time.monotonic()) - self._last >= REFRESH or self.done == self.total:
                self._last = now
                self._bar.set_postfix_str(text(), refresh=False)
            self._bar.update(done)
        elif not self.silent and self.done != self.total and self._due():
            self._last, self._shown, self._said = time.monotonic(), self._share(), True
            left = self._left()
            note(self._counted() + ("" if left is None else f", {duration(left)} left"))

    def write(self, line: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            note(line)

    def _due(self) -> bool:
        seconds = time.monotonic() - self._last
        more = self._share() - self._shown if self.total or self.seconds else 1.0
        return any(seconds >= least and more > part - 1e-9 for least, part in EVERY)

    def _share(self) -> float:
        """Of the whole, by items or by the clock, whichever is nearer to its end."""
        clock = (time.monotonic() - self._start) / self.seconds if self.seconds else 0.0
        return max(clock, self.done / self.total if self.total else 0.0)

    def _counted(self) -> str:
        of = f" of {self.total} ({self.done / self.total:.0%})" if self.total else f" {self.unit}s"
        text = self._text()
        return f"{self.what}: {self.done}{of}" + (f", {text}" if text else "")

    def _left(self) -> float | None:
        """Seconds: those that the other items take at the pace so far, or what the limit leaves."""
        spent, left = time.monotonic() - self._start, []
        if self.total and self.done > self.begin:
            left.append(spent * (self.total - self.done) / (self.done - self.begin))
        if self.seconds:
            left.append(self.seconds - spent)
        return min(left, default=None)


def tracked(
    items: Iterable[T], what: str, total: int | None = None, unit: str = "scan", leave: bool = True
) -> Iterator[T]:
    """The items, one after the other, with progress; `total` is their number unless given."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total, unit, leave) as progress:
        for item in cast(Iterable[T], items):
            yield item
            progress.update()


def duration(seconds: float) -> str:
    """Seconds as people say them: "8 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    whole = max(0, round(seconds))
    for large, small, names in ((86400, 3600, ("d", "h")), (3600, 60, ("h", "min")), (60, 1, ("min", "s"))):
        if whole >= large:
            return f"{whole // large} {names[0]} {whole % large // small} {names[1]}"
    return f"{whole} s"
