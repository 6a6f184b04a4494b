"""Writes the brains that `predict` returns."""

from collections.abc import Sequence
from typing import Any

from lightning import LightningModule, Trainer

from cortexgen.contracts import Brain
from cortexgen.generation.folder import BrainFolder
from cortexgen.runner.threads import side_by_side
from cortexgen.runner.writer import RunWriter


class BrainWriter(RunWriter):
    """Writes each brain, and at the end the tables and the manifest; those that are there are skipped."""

    def begin(self, trainer: Trainer, module: Any, made_by: dict[str, Any]) -> None:
        self.folder = BrainFolder(self.output, made_by)
        if trainer.is_global_zero:
            self.folder.check_environment()
        module.skip = self.folder.has

    def write(self, module: Any, prediction: Sequence[Brain], batch: Any) -> None:
        side_by_side(self.folder.write, prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join what all processes wrote."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.folder.close()
