"""What a training does beside its steps: validates in time, leaves its configuration."""

from pathlib import Path
from typing import Any, cast

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import SaveConfigCallback

from cortexgen.io import write_text


class Intervals(Callback):
    """Fits a preset's `val_check_interval`, in batches, to the training.

    There is a validation at the end of one that is shorter, and `check_val_every_n_epoch` holds where epochs are.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        interval, limit = trainer.val_check_interval, trainer.limit_train_batches
        if stage != "fit" or not isinstance(interval, int):
            return
        if trainer.check_val_every_n_epoch is None:
            if trainer.max_steps > 0:
                trainer.val_check_interval = min(interval, trainer.max_steps * trainer.accumulate_grad_batches)
            return
        batches = len(cast(Any, trainer).datamodule.train_dataloader())
        if interval > (min(batches, limit) if isinstance(limit, int) else int(batches * limit)):
            trainer.val_check_interval = 1.0


class SaveConfig(SaveConfigCallback):
    """Leaves the full configuration of a training run beside its checkpoints."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            content = self.parser.dump(self.config, skip_none=False)
            write_text(Path(trainer.default_root_dir, "config.yaml"), content)
