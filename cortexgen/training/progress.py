"""What a training says while it runs: steps, figures and the time left, instead of Lightning's bars and hints."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from lightning import Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer

from cortexgen.runner.progress import Progress
from cortexgen.runner.verbosity import note, verbosity

LOGGERS = "lightning.pytorch", "lightning.fabric"
HINTS = ".*(not have many workers|LeafSpec|not resumable|WeightAveraging callback, but|args parameter is intended"
HINTS += "|infer the batch indices).*"


@contextmanager
def lightning_hushed() -> Iterator[None]:
    """Let Lightning warn, and keep its hints to itself unless everything is to be said."""
    if verbosity() == "verbose":
        yield
        return
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    warnings.filterwarnings("ignore", message=HINTS)
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class Steps(ProgressBar):
    """Shows a training's optimizer steps of all that there will be, and the batches of the other verbs.

    Validations within a training have no progress of their own; their figures stand beside the next step's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._progress: Progress | None = None

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        text = str(kwargs.get("sep", " ")).join(map(str, args))
        self._progress.write(text) if self._progress else print(text)

    def _begin(self, what: str, total: int | None, unit: str, begin: int = 0, seconds: float | None = None) -> None:
        if self._enabled:
            self._progress = Progress(what, total, unit, begin=begin, seconds=seconds)

    def _end(self, done: bool = True) -> None:
        if self._progress is not None:
            self._progress.close(done)
        self._progress = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if not self._enabled:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        ours = hasattr(data, "side")
        scans = f" on {len(data.side('train'))} scans, {len(data.side('val'))} to validate" if ours else ""
        parameters = sum(p.numel() for p in pl_module.parameters()) / 1e6
        where = f"{pl_module.device.type}, {trainer.precision}; {trainer.default_root_dir}"
        note(f"{type(pl_module).__name__} ({parameters:.2f} million parameters){scans}; {where}")
        total = _steps(trainer, getattr(pl_module, "optimizer_steps", 1))
        self._begin("training", total, "step", trainer.global_step, _seconds(trainer))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._progress is not None and trainer.global_step > self._progress.done:
            self._progress.update(trainer.global_step - self._progress.done, lambda: _figures(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end(done=False)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            self._begin("validating", _batches(trainer.num_val_batches), "batch")

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._begin("testing", _batches(trainer.num_test_batches), "batch")

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._begin("predicting", _batches(trainer.num_predict_batches), "batch")

    def _batch(self, trainer: Trainer, *_: Any) -> None:
        if self._progress is not None and trainer.state.fn != "fit":
            self._progress.update()

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = cast(Any, _batch)

    def _verb_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.state.fn != "fit":
            self._end()

    on_validation_end = on_test_end = on_predict_end = cast(Any, _verb_end)


def _steps(trainer: Trainer, optimizer_steps: int) -> int | None:
    """How many steps `global_step` will count, where that is known.

    Arguments:
        optimizer_steps: that it counts for a step of training; see `StageModule`.
    """
    total = trainer.estimated_stepping_batches
    if total == float("inf"):
        return None
    if total != trainer.max_steps:  # of so many epochs, in which batches were counted
        total *= optimizer_steps
    return int(min(total, trainer.max_steps) if trainer.max_steps > 0 else total)


def _seconds(trainer: Trainer) -> float | None:
    """That a training may still take by its `max_time`."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    return min((seconds for seconds in left if seconds is not None), default=None)


def _batches(number: Any) -> int | None:
    total = sum(number) if isinstance(number, list) else number
    return int(total) if total != float("inf") else None


def _figures(trainer: Trainer) -> str:
    """The figures that a module shows, its training's loss first."""
    found: dict[str, Any] = trainer.progress_bar_metrics
    names = sorted(found, key=lambda name: not name.startswith("train/"))
    return ", ".join(f"{name.removeprefix('train/')} {float(found[name]):.4g}" for name in names)
