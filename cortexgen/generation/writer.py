"""Writes the brains that `predict` returns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from cortexgen.contracts import Brain
from cortexgen.generation.folder import BrainFolder
from cortexgen.io.output import open_run
from cortexgen.runner.threads import side_by_side


class BrainWriter(BasePredictionWriter):
    """Writes each brain as soon as it is drawn, and at the end the tables and the manifest; those there are skipped.

    Arguments:
        output: folder to write to.
    """

    def __init__(self, output: Path) -> None:
        super().__init__("batch")
        self.output = Path(output)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder, or go on in it.

        Raises:
            UserError: if it can't be written to, or holds what other weights or settings made.
        """
        module: Any = pl_module
        made_by = module.describe()
        if trainer.is_global_zero:
            open_run(self.output, module.output_name, made_by, [module.data.root] if module.data_is_set_up else [])
        trainer.strategy.barrier()
        self.folder = BrainFolder(self.output, made_by)
        if trainer.is_global_zero:
            self.folder.check_environment()
        module.skip = self.folder.has

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Brain],
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        side_by_side(self.folder.write, prediction)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join what all processes wrote."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            self.folder.close()
