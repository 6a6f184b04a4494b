"""What a training does beside its steps: validates in time, draws an example, leaves its configuration."""

from pathlib import Path
from typing import Any, cast

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from cortexgen.io import write_text


class Intervals(Callback):
    """Fits a preset's `val_check_interval`, in batches, to the training.

    There is a validation at the end of one that is shorter by its steps or epochs, and `check_val_every_n_epoch` holds
    where epochs are.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        interval, limit = trainer.val_check_interval, trainer.limit_train_batches
        if stage != "fit" or not isinstance(interval, int):
            return
        batches = len(cast(Any, trainer).datamodule.train_dataloader())
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if trainer.check_val_every_n_epoch is not None:
            trainer.val_check_interval = interval if interval <= batches else 1.0
            return
        if trainer.max_steps > 0:
            steps = max(1, trainer.max_steps // pl_module.optimizer_steps)
            interval = min(interval, steps * trainer.accumulate_grad_batches)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            interval = min(interval, max(1, batches) * trainer.max_epochs)
        trainer.val_check_interval = interval


class Pictures(Callback):
    """Draws the module's example: a PNG in the run folder, and an image in Weights & Biases.

    A callback that averages weights must come after this one: it puts the others back when a validation ends.
    """

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        dry = trainer.sanity_checking or getattr(trainer, "fast_dev_run", False)
        if dry or not trainer.is_global_zero or not trainer.loggers:
            return
        example: dict[str, Any] | None = pl_module.example()
        if example is None:
            return
        from cortexgen import figures  # matplotlib takes a second

        if "fixed" in example:
            moving, fixed, warped, growth = (example[k][0] for k in ("moving", "fixed", "warped", "log_jacobian"))
            figure = figures.registration(moving, fixed, warped, example["displacement"], growth, example["grid"])
        else:
            figure = figures.deformed_grid(example["displacement"], example["grid"], background=example["warped"][0])
        path = Path(trainer.default_root_dir, "pictures", f"step-{trainer.global_step:06d}.png")
        figures.write_png(path, figure)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("example", [str(path)], step=trainer.global_step)


class SaveConfig(SaveConfigCallback):
    """Leaves the full configuration of a training run beside its checkpoints."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            content = self.parser.dump(self.config, skip_none=False)
            write_text(Path(trainer.default_root_dir, "config.yaml"), content)
