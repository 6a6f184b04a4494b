"""Pictures of training: an example pair or sample after each validation."""

from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger


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
