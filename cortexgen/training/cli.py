"""LightningCLI for both stages: run folders, resuming, loggers."""

import contextlib
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning import LightningDataModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

import cortexgen.data.appearance  # classes are found by their short names once they are imported
import cortexgen.data.fields
import cortexgen.data.images
import cortexgen.modules.baselines
import cortexgen.studies.datamodules
import cortexgen.training.averages  # noqa: F401
from cortexgen.errors import UserError
from cortexgen.io.output import claim, contents, examine_run
from cortexgen.modules.base import StageModule
from cortexgen.registry import everything
from cortexgen.runner.precision import choose_accelerator, native_bfloat16
from cortexgen.runner.verbosity import note, verbosity
from cortexgen.training.callbacks import Intervals, Pictures, SaveConfig
from cortexgen.training.presets import PresetParser
from cortexgen.training.progress import Steps, lightning_hushed
from cortexgen.training.resuming import AtomicCheckpoints, Resumable
from cortexgen.weights import read_checkpoint, start

SEEDS = 2**32  # what numpy takes


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class _Parser(PresetParser, LightningArgumentParser):
    pass


def _is_run(root: Path) -> bool:
    """Whether a folder is that of a training: it holds our configuration, or nothing else than a training makes."""
    config = root / "config.yaml"
    if config.is_file():
        return "cortexgen." in config.read_text(encoding="utf-8", errors="replace")
    return bool(found := {*contents(root)}) and found <= {"checkpoints", "logs", "pictures", "wandb"}


class CortexgenCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` of both stages.

    Attributes:
        made: the run folder, if this run makes it.
    """

    made: Path | None = None
    above: Sequence[Path] = ()

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
        except Exception:
            self._forget()
            raise

    def _forget(self) -> None:
        """Remove the folder of a training that failed before there was a checkpoint."""
        if self.made and int(os.environ.get("LOCAL_RANK", 0)) == 0 and not any(self.made.rglob("*.ckpt")):
            shutil.rmtree(self.made, ignore_errors=True)
            with contextlib.suppress(OSError):
                for above in self.above:
                    above.rmdir()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", type=str | None, default=None, help="Folder that predict writes to.")
        parser.add_argument(
            "--wandb",
            type=Literal["offline", "online", "off"],
            default="offline",
            help="Weights & Biases log of a fit: offline needs no account (used where trainer.logger is not set).",
        )
        parser.add_argument(
            "--start_from",
            type=str | None,
            default=None,
            help="Weights that a fit begins with instead of random ones: a file (.safetensors, .ckpt), or the name of "
            "some that come with the package. What they don't have keeps its random start, which is said. A fit that "
            "goes on (--ckpt_path) has its own.",
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
        seed = self.chosen.get("seed_everything")
        if not isinstance(seed, bool) and isinstance(seed, int) and not 0 <= seed < SEEDS:
            raise UserError(f"--seed_everything: expected 0 to {SEEDS - 1}, got {seed}")
        if self.config.subcommand == "fit" and not self.run_folder.exists():
            self.made = self.run_folder
            self.above = [path for path in self.made.parents if not path.exists()]
        path = self.chosen.get("ckpt_path")
        if path in ("last", "best"):
            path = self.run_folder / "checkpoints" / f"{path}.ckpt"
            if not path.is_file():
                raise UserError(f"--ckpt_path {self.chosen.ckpt_path}: there is no {path}; nothing to go on from")
        if path:
            checkpoint = read_checkpoint(Path(path))
            self._check_class(checkpoint, path)
            if self.config.subcommand == "fit":
                self._say_kept(checkpoint)
            self.chosen.ckpt_path = str(path)

    def _check_class(self, checkpoint: Mapping[str, Any], path: object) -> None:
        """See that the model's class is the configuration's: Lightning takes the one of the checkpoint anyway."""
        found = checkpoint.get("cortexgen_module") or checkpoint["hyper_parameters"].get("_class_path")
        theirs, ours = (str(name).rpartition(".")[2] for name in (found, self.chosen.model.class_path))
        if found and theirs != ours:
            raise UserError(f"--ckpt_path {path}: a checkpoint of {theirs}, the configuration's model is {ours}")

    def _say_kept(self, checkpoint: Mapping[str, Any]) -> None:
        """Say which options of the model the checkpoint overrides: Lightning takes its own, without a word."""
        given, kept = self.chosen.model.init_args, checkpoint["hyper_parameters"]
        differ = [name for name in kept if given.get(name) is not None and _listed(kept[name]) != _listed(given[name])]
        if differ:
            which = ", ".join(f"{name} {kept[name]} instead of {given[name]}" for name in differ)
            rank_zero_warn(f"--ckpt_path: the training goes on with the checkpoint's {which}; --start_from begins anew")

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
            slow = f"precision {config.precision} is emulated on this machine and slow; 32-true is faster"
            warnings.warn(slow, stacklevel=2)
        if config.logger is None:
            kwargs["logger"] = self._loggers(root) if self.subcommand == "fit" else False
        given = self.config_init[self.subcommand].trainer.callbacks or []
        # First, so that pictures show averaged weights, and last.ckpt is written before these replace the others.
        given = given if isinstance(given, list) else [given]
        kwargs["callbacks"] = [Pictures(), Resumable(), Intervals(), *given, *self._progress(given)]
        kwargs["enable_progress_bar"] = any(isinstance(callback, ProgressBar) for callback in kwargs["callbacks"])
        if config.enable_model_summary is None:
            kwargs["enable_model_summary"] = verbosity() == "verbose"
        trainer = super().instantiate_trainer(**kwargs)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpoints()
        if self.subcommand == "fit" and trainer.world_size > 1:
            self._share_steps(trainer)
            if not self.model.automatic_optimization and isinstance(trainer.strategy, DDPStrategy):
                trainer.strategy._ddp_kwargs["find_unused_parameters"] = True  # each optimizer's step uses a part
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(root / "checkpoints")
        return trainer

    def _progress(self, given: Sequence[Any]) -> list[ProgressBar]:
        """What shows the run's progress beside the configuration's callbacks."""
        config = self.chosen.trainer
        there = any(isinstance(callback, ProgressBar) for callback in given)
        return [] if there or config.enable_progress_bar is False or config.barebones else [Steps()]

    def _share_steps(self, trainer: Trainer) -> None:
        """Let several devices share the accumulated batches of a step, so that it takes as many samples as on one."""
        devices, accumulated = trainer.world_size, trainer.accumulate_grad_batches
        size = accumulated * self.datamodule.batch_size
        if accumulated % devices:
            rank_zero_warn(
                f"{devices} devices: a step takes {devices * size} samples instead of {size}; divide "
                "accumulate_grad_batches or batch_size for as many as on one device"
            )
            return
        trainer.accumulate_grad_batches = accumulated // devices
        if isinstance(trainer.val_check_interval, int) and trainer.check_val_every_n_epoch is None:
            trainer.val_check_interval = max(1, trainer.val_check_interval // devices)
        note(
            f"{devices} devices: accumulate_grad_batches {accumulated} becomes {accumulated // devices}, "
            f"so that a step takes {size} samples as on one device"
        )

    def _loggers(self, root: Path) -> list[Logger]:
        loggers: list[Logger] = [CSVLogger(str(root), name="logs")]
        if self.chosen.wandb != "off" and not self.chosen.trainer.fast_dev_run:
            offline = self.chosen.wandb == "offline"
            if offline and verbosity() != "verbose":
                os.environ.setdefault("WANDB_SILENT", "true")
            logger = WandbLogger(project="cortexgen", name=root.name, save_dir=str(root), offline=offline)
            logger._wandb_init.pop("anonymous", None)  # which Lightning hands on though W&B warns of it
            loggers.append(logger)
        return loggers

    def before_fit(self) -> None:
        if not getattr(self.trainer, "fast_dev_run", False):
            self._claim_run()
        if self.chosen.start_from and not self.chosen.ckpt_path:
            start(self.model, self.chosen.start_from)

    def _claim_run(self) -> None:
        """See that the run folder is new, or that of the training that goes on."""
        last = self.run_folder / "checkpoints" / "last.ckpt"
        resumed = self.chosen.ckpt_path and Path(self.chosen.ckpt_path).resolve().parent == last.parent.resolve()
        if last.is_file() and not resumed:
            ways = "give --ckpt_path last to go on, or another --trainer.default_root_dir"
            raise UserError(f"{last} is there already: {ways}")
        if self.trainer.is_global_zero:
            claim(self.run_folder, _is_run)

    def _require_weights(self) -> None:
        if not self.chosen.ckpt_path:
            raise UserError(f"{self.subcommand} needs trained weights: give --ckpt_path (a file, last or best)")

    before_validate = before_test = _require_weights

    def before_predict(self) -> None:
        self._require_weights()
        if self.chosen.output is None:
            raise UserError("predict needs a folder to write to: give --output OUT")
        self.model.output = Path(self.chosen.output)
        examine_run(self.model.output, self.model.output_name)
        self.config_init.predict.return_predictions = False  # they are written, and too large to be kept


def run_verb(args: Sequence[str]) -> CortexgenCLI:
    """Run `fit`, `validate`, `test` or `predict`.

    Raises:
        UserError: for a user's mistake; after a cohort with failed subjects, once the others are done.
    """
    everything("steps")  # which a study's data module takes by their short names
    argv, sys.argv = sys.argv, [sys.argv[0], *args]  # what DDP starts its other processes with
    try:
        with lightning_hushed():
            cli = CortexgenCLI(
                model_class=StageModule,
                datamodule_class=LightningDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                parser_class=_Parser,
                save_config_callback=SaveConfig,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                args=list(args),
            )
    except MisconfigurationException as error:  # of the trainer's options
        raise UserError(" ".join(str(error).split())) from error
    except SIGTERMException:  # a SystemExit, of status 0
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:  # Lightning's answer to an interruption
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    finally:
        sys.argv = argv
    problems = getattr(cli.datamodule, "problems", {}) | cli.model.failures
    if problems:
        name, reason = next(iter(problems.items()))
        raise UserError(f"{len(problems)} subject(s) left out, the others are done; {name}: {reason}")
    return cli
