"""Writing what `predict` returns, as soon as it is there."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from cortexgen.io.output import open_run


class RunWriter(BasePredictionWriter):
    """Writes predictions to a folder that it makes, or goes on in.

    Arguments:
        output: the folder.
    """

    def __init__(self, output: Path) -> None:
        super().__init__("batch")
        self.output = Path(output)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the folder in the first process; the others wait.

        Raises:
            UserError: if it can't be written to, or holds what other weights or settings made.
        """
        module: Any = pl_module
        made_by = module.describe()
        if trainer.is_global_zero:
            open_run(self.output, module.output_name, made_by, module.data.roots if module.data_is_set_up else [])
        trainer.strategy.barrier()
        self.begin(trainer, module, made_by)

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, prediction: Any, indices: Any, batch: Any, *place: Any
    ) -> None:
        self.write(pl_module, prediction, batch)

    @abstractmethod
    def begin(self, trainer: Trainer, module: Any, made_by: dict[str, Any]) -> None:
        """Look at what the folder holds, and tell the module what it may skip."""

    @abstractmethod
    def write(self, module: Any, prediction: Any, batch: Any) -> None:
        """Write a prediction."""
