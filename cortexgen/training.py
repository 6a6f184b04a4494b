"""LightningCLI for both stages: run folders, resuming, loggers."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from cortexgen.data.fields import FieldDataModule
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.io import write_text
from cortexgen.io.bids import check_output
from cortexgen.modules import DiffuseMorphModule, FieldDiffusionModule
from cortexgen.modules.base import StageModule
from cortexgen.modules.pictures import Pictures
from cortexgen.modules.precision import choose_accelerator, native_bfloat16
from cortexgen.studies.datamodules import ADNIDataModule, BIDSDataModule, NCANDADataModule, StudyDataModule
from cortexgen.weights import read_checkpoint

__all__ = [
    "ADNIDataModule",
    "BIDSDataModule",
    "DiffuseMorphModule",
    "FieldDataModule",
    "FieldDiffusionModule",
    "NCANDADataModule",
    "RegistrationDataModule",
    "StudyDataModule",
    "run_verb",
]


class _Parser(LightningArgumentParser):
    """Errors in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        lines = [line.strip(" -") for line in str(message).splitlines() if line.strip()]
        raise UserError(" ".join(lines)) from None


class _SaveLast(Callback):
    """Leaves last.ckpt at the step where training ended; ModelCheckpoint writes it after validations only."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        checkpoints = trainer.checkpoint_callback
        dry = getattr(trainer, "fast_dev_run", False)
        if isinstance(checkpoints, ModelCheckpoint) and checkpoints.save_last and not dry:
            trainer.save_checkpoint(Path(str(checkpoints.dirpath), "last.ckpt"))


class _SaveConfig(SaveConfigCallback):
    """Leaves the full configuration of a training run beside its checkpoints."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            content = self.parser.dump(self.config, skip_none=False)
            write_text(Path(trainer.default_root_dir, "config.yaml"), content)


class CortexgenCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` of both stages."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", type=str | None, default=None, help="Folder that predict writes to.")
        parser.add_argument(
            "--wandb",
            type=Literal["offline", "online", "off"],
            default="offline",
            help="Weights & Biases log of a fit: offline needs no account (used where trainer.logger is not set).",
        )

    @property
    def chosen(self) -> Any:
        """The configuration of the verb that runs."""
        return self.config[self.config.subcommand]

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and logs of the run are."""
        stage = self.chosen.model.class_path.rsplit(".", 1)[-1].removesuffix("Module").lower()
        return Path(self.chosen.trainer.default_root_dir or f"runs/{stage}")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        super().parse_arguments(parser, args)
        path = self.chosen.get("ckpt_path")
        if path in ("last", "best"):
            path = self.run_folder / "checkpoints" / f"{path}.ckpt"
            if not path.is_file():
                raise UserError(f"--ckpt_path {self.chosen.ckpt_path}: there is no {path}; nothing to go on from")
        if path:
            read_checkpoint(Path(path))
            self.chosen.ckpt_path = str(path)

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:  # what a constructor says, wrapped by jsonargparse
            lines = [line.strip() for line in str(error).splitlines()]
            raise UserError(next((line[2:] for line in lines if line.startswith("- ")), lines[0])) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config, root = self.chosen.trainer, self.run_folder
        kwargs["default_root_dir"] = str(root)
        if isinstance(config.accelerator, str):
            kwargs["accelerator"] = choose_accelerator(config.accelerator)
        if config.precision is None:
            kwargs["precision"] = "bf16-mixed" if native_bfloat16() else "32-true"
        elif "bf16" in str(config.precision) and not native_bfloat16():
            warnings.warn(
                f"precision {config.precision} is emulated on this machine and slow; 32-true is faster", stacklevel=2
            )
        if config.logger is None:
            kwargs["logger"] = self._loggers(root) if self.subcommand == "fit" else False
        trainer = super().instantiate_trainer(**kwargs)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(root / "checkpoints")
        return trainer

    def _loggers(self, root: Path) -> list[Logger]:
        loggers: list[Logger] = [CSVLogger(str(root), name="logs")]
        if self.chosen.wandb != "off" and not self.chosen.trainer.fast_dev_run:
            loggers.append(
                WandbLogger(
                    project="cortexgen", name=root.name, save_dir=str(root), offline=self.chosen.wandb == "offline"
                )
            )
        return loggers

    def before_fit(self) -> None:
        if getattr(self.trainer, "fast_dev_run", False):
            return
        last = self.run_folder / "checkpoints" / "last.ckpt"
        if last.is_file() and not self.chosen.ckpt_path:
            raise UserError(
                f"{last} is there already: give --ckpt_path last to go on, or another --trainer.default_root_dir"
            )
        if self.trainer.is_global_zero:
            check_output(self.run_folder)

    def _require_weights(self) -> None:
        if not self.chosen.ckpt_path:
            raise UserError(f"{self.subcommand} needs trained weights: give --ckpt_path (a file, last or best)")

    before_validate = before_test = _require_weights

    def before_predict(self) -> None:
        self._require_weights()
        if self.chosen.output is None:
            raise UserError("predict needs a folder to write to: give --output OUT")
        self.model.output = Path(self.chosen.output)


def run_verb(args: Sequence[str]) -> CortexgenCLI:
    """Run `fit`, `validate`, `test` or `predict`.

    Raises:
        UserError: for a user's mistake; after a cohort with failed subjects, once the others are done.
    """
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*WeightAveraging callback, but.*")
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
    argv, sys.argv = sys.argv, [sys.argv[0], *args]  # what DDP starts its other processes with
    try:
        cli = CortexgenCLI(
            model_class=StageModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=_Parser,
            save_config_callback=_SaveConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            trainer_defaults={"callbacks": [Pictures(), _SaveLast()]},
            args=list(args),
        )
    finally:
        sys.argv = argv
    problems = getattr(cli.datamodule, "problems", {}) | cli.model.failures
    if problems:
        name, reason = next(iter(problems.items()))
        raise UserError(f"{len(problems)} subject(s) left out, the others are done; {name}: {reason}")
    return cli
