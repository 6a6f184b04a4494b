"""One way to run a cohort: in this process, in isolated ones, or on many machines through Dask."""

import io
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, nullcontext
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import torch

from cortexgen.errors import UserError, reason
from cortexgen.io.bids import Row
from cortexgen.runner.progress import Progress
from cortexgen.runner.threads import limited_threads, single_thread

PATIENCE = 10.0  # seconds until a scheduler must have answered
ATTEMPTS = 3  # at an item whose process is killed
KILLED = f"its process was killed {ATTEMPTS} times; is there too little memory?"
LOST = ("CancelledError", "FutureCancelledError")  # what Dask says of items whose scheduler is gone
T = TypeVar("T")


class Runner:
    """Does something with each of many items, whatever happens to one of them, to one process, or to one machine.

    As a context its processes, or its connection, last until the end of that; otherwise as long as each `run`.

    Arguments:
        jobs: items at a time on this machine; with more than one each is done in a process of its own, so that what it
            does and the items must be picklable.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers take the items instead.
        isolated: work in another process even with one job.
        threads: of the libraries in each process; unless given, those of this machine are shared among its processes,
            and Dask's workers keep to their own.
        beside: items at a time in this process, in a thread each, where no other one takes them.

    Raises:
        UserError: if there are no jobs or threads; on entering, if no scheduler answers or Dask is not installed.
    """

    def __init__(
        self,
        jobs: int = 1,
        scheduler: str | None = None,
        isolated: bool = False,
        threads: int | None = None,
        beside: int = 1,
    ) -> None:
        for name, number in (("jobs", jobs), ("threads", threads)):
            if number is not None and number < 1:
                raise UserError(f"{name}: expected 1 or more, got {number}")
        self.jobs, self.scheduler, self.threads, self.beside = jobs, scheduler, threads, beside
        self.here = scheduler is None and jobs == 1 and not isolated
        if threads is None and scheduler is None and not self.here:
            self.threads = max(1, torch.get_num_threads() // jobs)
        self._open = ExitStack()
        self._client: Any = None
        self._pool: Executor | None = None

    def __enter__(self) -> "Runner":
        if self.scheduler:
            self._client = self._open.enter_context(_dask(self.scheduler))
            self._pool = self._open.enter_context(self._client.get_executor(pure=False))
        elif not self.here:
            self._pool = self._open.enter_context(_Processes(self.jobs))
        return self

    def __exit__(self, *error: Any) -> None:
        self._client = self._pool = None
        self._open.close()

    def __reduce__(self) -> tuple[Any, ...]:  # what is sent elsewhere works on there in its own process
        return Runner, ()

    def run(self, work: Callable[[T], Row], items: Mapping[str, T], what: str, unit: str = "scan") -> dict[str, Row]:
        """A row of each item, by its name and in order.

        An item that fails, or whose process is killed again and again, has "participant_id", "status" ("failed") and
        "reason"; the others go on.

        Arguments:
            what, unit: for the progress.

        Raises:
            OSError: if the disk is full, or can't be written to.
        """
        if not items:
            return {}
        if self._pool is None and not self.here:
            with self:
                return self.run(work, items, what, unit)
        rows: dict[str, Row] = {}
        lost = 0

        def said() -> str:
            return f"{lost} failed"

        found = self._far(self._pool, work, items) if self._pool else self._near(work, items)
        with closing(found), Progress(what, len(items), unit) as progress:
            for name, row in found:
                rows[name] = row
                lost += row.get("status") == "failed"
                progress.update(text=said)
        return {name: rows[name] for name in items}

    def _near(self, work: Callable[[T], Row], items: Mapping[str, T]) -> Generator[tuple[str, Row], None, None]:
        if self.beside == 1:
            for name, item in items.items():
                yield name, _row(work, name, item, self.threads)
            return
        with single_thread(), ThreadPoolExecutor(self.beside, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from _completed({pool.submit(_row, work, name, item, None): name for name, item in items.items()})

    def _far(
        self, pool: Executor, work: Callable[[T], Row], items: Mapping[str, T]
    ) -> Generator[tuple[str, Row], None, None]:
        sent: Any = _pack(work)
        if self._client:  # not with each item: a worker has it once, and the scheduler again if that is killed
            sent = self._client.submit(bytes, sent, pure=False)
        futures = {pool.submit(_sent_row, sent, name, _pack(item), self.threads): name for name, item in items.items()}
        yield from _completed(futures)


HERE = Runner()


def _completed(futures: dict[Future, str]) -> Generator[tuple[str, Row], None, None]:
    """The rows of what was submitted, by name; what hasn't begun when no more are asked for is cancelled."""
    try:
        for future in as_completed(futures):
            name = futures.pop(future)
            try:
                yield name, future.result()
            except Exception as error:
                if type(error).__name__ in LOST:
                    raise UserError("the scheduler was lost; call again to go on") from None
                killed = type(error).__name__ in ("BrokenProcessPool", "KilledWorker")
                yield name, failed(name, KILLED if killed else reason(error))
    finally:
        for future in futures:
            future.cancel()


def failed(name: str, why: str) -> Row:
    """The row of what can't be done."""
    return {"participant_id": name, "status": "failed", "reason": why}


def _row(work: Callable[[T], Row], name: str, item: T, threads: int | None) -> Row:
    with nullcontext() if threads is None else limited_threads(threads):
        try:
            return work(item)
        except Exception as error:
            return failed(name, reason(error))


class _Pickler(pickle.Pickler):
    """Makes paths absolute: other machines' workers have other working folders."""

    def reducer_override(self, obj: Any) -> Any:
        return (Path, (str(obj.absolute()),)) if isinstance(obj, Path) else NotImplemented


def _pack(content: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file).dump(content)
    return file.getvalue()


_unpack = lru_cache(maxsize=1)(pickle.loads)


def _sent_row(work: bytes, name: str, item: bytes, threads: int | None) -> Row:
    """What another process does; it unpacks the work of a run, which may read weights for that, once."""
    return _row(_unpack(work), name, pickle.loads(item), threads)


class _Processes(ThreadPoolExecutor):
    """`jobs` threads with a process each: if that is killed, its item is begun again and no other one is lost."""

    def __init__(self, jobs: int) -> None:
        super().__init__(jobs)
        self.own = threading.local()
        self.started: list[ProcessPoolExecutor] = []
        self.closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return super().submit(self._isolated, fn, *args, **kwargs)

    def _isolated(self, fn: Callable[..., Any], *args: Any) -> Any:
        for _ in range(ATTEMPTS):
            if getattr(self.own, "process", None) is None:
                spawn = multiprocessing.get_context("spawn")
                self.own.process = ProcessPoolExecutor(1, spawn, initializer=_end_with_parent)
                self.started.append(self.own.process)
            try:
                return self.own.process.submit(fn, *args).result()
            except BrokenProcessPool as error:
                self.own.process, killed = None, error
                if self.closed:
                    break
        raise killed

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.closed = True
        super().shutdown(wait, cancel_futures=True)
        for process in self.started:
            process.shutdown(wait, cancel_futures=cancel_futures)


def _end_with_parent() -> None:
    """What a process does first: an interrupt is its parent's business, whose end, however it comes, is its own too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent: Any = multiprocessing.parent_process()
    threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def _dask(scheduler: str) -> Any:
    """A client of Dask's; raises as `Runner`."""
    try:
        from distributed import Client
    except ImportError:
        raise UserError("--scheduler needs Dask: pip install 'cortexgen[cluster]'") from None
    try:
        return Client(scheduler, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(f"--scheduler {scheduler}: no Dask scheduler answers there ({error})") from None
