"""What the generators of images share: their data, their sizes, their draws, and how far a training is."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import Timer
from torch import Tensor
from typing_extensions import Self

from cortexgen.contracts import Generator
from cortexgen.data.covariates import CovariateEncoder
from cortexgen.errors import UserError
from cortexgen.generation.images import ImageGenerator
from cortexgen.generation.velocities import SAMPLING
from cortexgen.modules.generator import GeneratorModule
from cortexgen.runner.precision import Precision

RUN_TIME = ["num_samples", "sample_seed", "conditions"]  # options that are no hyper-parameters
ALIASES = {"seed": "sample_seed"}


def scaled(channels: Sequence[int], scale: float, multiple: int = 8) -> tuple[int, ...]:
    """Numbers of channels as published times `scale`, rounded to a multiple, and one multiple at least."""
    return tuple(max(multiple, round(n * scale / multiple) * multiple) for n in channels)


class BaselineModule(GeneratorModule):
    """A generator of images `[B, 1, D, H, W]` in [0, 1], batches of `ImageDataModule`.

    A subclass names the options of a sample in `run_options`, which are attributes (`Carried`, so that a checkpoint
    keeps what the training's configuration says), and has `covariates` among its hyper-parameters if it takes some.

    Attributes:
        conditions: covariates that are asked for in `predict`.
        sample_seed: image k depends on it and on k alone.
        precision: of the network in `generate`.
        run_options: what else a sample depends on, names of attributes.
    """

    stage = "a baseline"
    run_options: Sequence[str] = ()
    conditions: Mapping[str, Any] | None = None
    sample_seed: int = 0
    precision: Precision = "auto"

    @property
    def covariates(self) -> list[str]:
        """That it is conditioned on."""
        return list(self.hparams.get("covariates", ()))

    @property
    def encoder(self) -> CovariateEncoder:
        """Of the covariates; its numbers live in the contract."""
        return CovariateEncoder(self.contract.get("covariates", {}))

    def setup(self, stage: str) -> None:
        """Take the contract from the data, with covariates on the first fit."""
        fresh = not self.contract
        super().setup(stage)
        if stage == "fit" and fresh and self.covariates:
            self.contract["covariates"] = self.data.encoder(self.covariates).specs
            self.contract["people"] = self.data.people(self.covariates)

    @property
    def progress(self) -> float:
        """Share of the training's budget that is spent, by steps, epochs or time, the largest; 0 without a budget."""
        shares, trainer = [0.0], cast(Any, self.trainer)
        if trainer.max_steps > 0:
            shares.append(trainer.global_step / trainer.max_steps)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            batches, done = trainer.num_training_batches, trainer.fit_loop.epoch_loop.batch_progress.current.completed
            shares.append((trainer.current_epoch + done / max(1, batches)) / trainer.max_epochs)
        for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):
            if (left := timer.time_remaining()) is not None:
                spent = timer.time_elapsed()
                shares.append(spent / max(1e-9, spent + left))
        return float(trainer.strategy.broadcast(min(1.0, max(shares))))

    def checked(self, loss: Tensor) -> Tensor:
        """A loss, if it is a number.

        Raises:
            UserError: if not: every parameter would be none after the step.
        """
        if not torch.isfinite(loss):
            raise UserError(f"the training diverged: its loss is {float(loss)} at step {self.global_step}")
        return loss

    @abstractmethod
    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        """An image on the contract's grid, `[1, D, H, W]`, about in [0, 1]; see `generation.images`."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.contract[SAMPLING] = self.sampling()
        super().on_save_checkpoint(checkpoint)

    def sampling(self) -> dict[str, Any]:
        """Run-time options that a sample depends on."""
        return {name: getattr(self, name) for name in self.run_options}

    def take(self, **options: Any) -> Self:
        """The same with options set, by the names that `cortexgen generate` has for them.

        Raises:
            UserError: if it is drawn without such an option.
        """
        known = {"sample_seed", "conditions", "precision", *self.run_options}
        for option, value in options.items():
            name = ALIASES.get(option, option)
            if name not in known:
                raise UserError(f"{option}: {type(self).__name__} draws without it")
            setattr(self, name, value)
        return self

    @cached_property
    def generator(self) -> Generator:  # type: ignore[override]
        """Made when it is first needed; a running trainer's precision holds."""
        precision = self.precision
        if self._trainer is not None:
            precision = "bf16" if "bf16" in str(self.trainer.precision) else "32"
        return ImageGenerator(self.eval(), self.sample_seed, self.conditions, precision)

    def example(self) -> None:
        """There is no deformation to draw."""
        return None
