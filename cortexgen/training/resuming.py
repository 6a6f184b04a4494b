"""Training that goes on after an interruption as if there had been none."""

import math
import time
from pathlib import Path
from typing import Any, cast

from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from cortexgen.io.atomic import atomic
from cortexgen.modules.base import StageModule

INTERVAL = 600.0  # seconds between two files, at most
COUNTS = ("ready", "started", "processed", "completed")


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoint files that are there whole or not at all: a process may be killed while it writes one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class Resumable(Callback):
    """Writes last.ckpt, and goes on from any checkpoint at the sample that follows its last optimizer step.

    Seeds and order of the samples are functions of their place (`cortexgen.data.order`), so that the place is all there
    is to restore; it follows from the number of steps. last.ckpt takes the place of ModelCheckpoint's `save_last`: it
    is written after each validation, every ten minutes, and at the end, each time before the next batch, when all that
    belongs to a step is done. This callback must come before those that average weights, which leave the averages in
    the module at the end.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._due = False
        self._written = time.monotonic()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or getattr(trainer, "fast_dev_run", False):
            return
        for checkpoints in trainer.checkpoint_callbacks:
            if isinstance(checkpoints, ModelCheckpoint) and checkpoints.save_last and checkpoints.dirpath:
                checkpoints.save_last = False
                self._path = Path(checkpoints.dirpath, "last.ckpt")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit" and "loops" in checkpoint:
            set_place(trainer, checkpoint, cast(StageModule, pl_module).optimizer_steps)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        late = time.monotonic() - self._written > INTERVAL
        if trainer.strategy.reduce_boolean_decision(late, all=False) or self._due:
            self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._due = not trainer.sanity_checking

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        self._due, self._written = False, time.monotonic()
        if self._path is not None:
            trainer.save_checkpoint(self._path)


def set_place(trainer: Trainer, checkpoint: dict[str, Any], optimizer_steps: int = 1) -> None:
    """Make the loops' state in a checkpoint that after its last optimizer step, in the middle of an epoch or not.

    What Lightning keeps is the state of the moment: within accumulated batches, whose gradients are lost; at the end of
    training, which it counts as an epoch's end; and in batches of as many devices as there were.

    Arguments:
        optimizer_steps: that `global_step` counts for a step of training; see `StageModule`.
    """
    trainer.fit_loop.setup_data()
    batches, accumulated = int(trainer.num_training_batches), trainer.accumulate_grad_batches
    epoch, steps = divmod(checkpoint["global_step"] // optimizer_steps, math.ceil(batches / accumulated))
    done = steps * accumulated
    loops = checkpoint["loops"]["fit_loop"]
    begun = dict.fromkeys(COUNTS[:2], epoch + (done > 0)) | dict.fromkeys(COUNTS[2:], epoch)
    loops["epoch_progress"] |= {"total": begun, "current": dict(begun)}
    loops["epoch_loop.batch_progress"] |= {
        "total": dict.fromkeys(COUNTS, epoch * batches + done),
        "current": dict.fromkeys(COUNTS, done),
        "is_last_batch": False,
    }
    for name in [name for name in loops if name.startswith("epoch_loop.val_loop.")]:
        del loops[name]
