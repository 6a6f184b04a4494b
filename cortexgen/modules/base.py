"""What all stages share: the contract with the data, the optimizer, and who writes what `predict` returns."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.callbacks import Callback, Timer
from typing_extensions import Self

from cortexgen.data.cohorts import pipelines
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.nets.state import state_hash


def _side(value: Any) -> str:
    if isinstance(value, Mapping) and "shape" in value:
        return str(Grid.from_dict(dict(value)))
    return json.dumps(value)


def _agree(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Mapping) and "affine" in ours:
        return Grid.from_dict(dict(ours)).matches(Grid.from_dict(dict(theirs)))
    return ours == theirs


def check_contract(weights: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Compare what weights were trained for with what the data bring.

    Raises:
        UserError: if template, labels, grid or integration differ; both sides are named.
    """
    for key in ("template", "grid", "image_grid", "integration_steps"):
        if key in weights and key in data and not _agree(weights[key], data[key]):
            raise UserError(f"the checkpoint's {key} is {_side(weights[key])}; the data's is {_side(data[key])}")
    known = pipelines(weights.get("preprocessing"))
    if data and any(p not in known for p in pipelines(data.get("preprocessing"))):
        warnings.warn(
            f"the checkpoint was trained on data preprocessed as {_side(weights.get('preprocessing'))}, "
            f"these are {_side(data.get('preprocessing'))}",
            stacklevel=2,
        )


def _nothing(_: Any) -> bool:
    return False


class StageModule(LightningModule):
    """Base of the stages.

    Attributes:
        stage: what it is called in errors.
        contract: what the weights depend on (template, grid, ...); lives in the checkpoint and wins over the data.
        output: folder that the predictions are written to, if anywhere.
        output_name: what it holds then.
        writer: makes the callback that writes there.
        skip: says which scan or sample is there already, so that `predict` needn't make it.
        failures: why a subject has no prediction, by name.
        optimizer_steps: that a step of training takes, one for each optimizer.
    """

    stage = ""
    output_name = ""
    writer: Callable[[Path], Callback] | None = None
    optimizer_steps: int = 1

    def __init__(self) -> None:
        super().__init__()
        self.contract: dict[str, Any] = {}
        self.output: Path | None = None
        self.skip: Callable[[Any], bool] = _nothing
        self.failures: dict[str, str] = {}

    @property
    def h(self) -> Any:
        """The hyper-parameters, by name."""
        return self.hparams

    @property
    def data(self) -> Any:
        """The data module of the running trainer, or None."""
        return getattr(self._trainer, "datamodule", None) if self._trainer is not None else None

    @property
    def data_is_set_up(self) -> bool:
        """Whether there is a data module that has read its cohort."""
        return bool(getattr(self.data, "scans", None))

    def _data_contract(self) -> dict[str, Any]:
        return self.data.contract() if self.data_is_set_up else {}

    def setup(self, stage: str) -> None:
        """Take the contract from the data, or compare."""
        self.skip = _nothing
        found = self._data_contract()
        if self.contract:
            check_contract(self.contract, found)
        else:
            self.contract = found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cortexgen"] = self.contract
        checkpoint["cortexgen_module"] = self.class_path()
        if self.data_is_set_up:
            checkpoint["split"] = dict(self.data.split)

    @classmethod
    def class_path(cls) -> str:
        """What the class is imported by; checkpoints and weights files name it."""
        return f"{cls.__module__}.{cls.__qualname__}"

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "cortexgen" not in checkpoint:
            raise UserError("the checkpoint was not written by cortexgen")
        self._check_fit(checkpoint)
        self.contract = checkpoint["cortexgen"]
        check_contract(self.contract, self._data_contract())
        if self.data_is_set_up:
            self._take_split(checkpoint.get("split", {}))

    def _take_split(self, trained: Mapping[str, str]) -> None:
        """A subject stays on the side that it was on when the weights were trained.

        Raises:
            UserError: if training is to go on with another split.
        """
        ours = self.data.split
        moved = [name for name, side in trained.items() if name in ours and ours[name] != side]
        if not moved:
            return
        shown = ", ".join(f"{name} ({trained[name]}, now {ours[name]})" for name in moved[:3])
        what = f"{len(moved)} subject(s) were on another side of the split when these weights were trained: {shown}"
        if self.trainer.state.fn == "fit":
            raise UserError(f"{what}; give the same --data.val and --data.test, or name them with --data.val_subjects")
        warnings.warn(f"{what}; they stay where they were", stacklevel=2)
        self.data.split = ours | {name: trained[name] for name in moved}

    def _check_fit(self, checkpoint: Mapping[str, Any]) -> None:
        """See that a checkpoint's parameters are this module's.

        Raises:
            UserError: if not, with the first that differs.
        """
        made_by = checkpoint.get("cortexgen_module", self.class_path())
        if made_by != self.class_path():
            raise UserError(f"the checkpoint is one of {made_by}, the model is {self.class_path()}")
        theirs, ours = checkpoint["state_dict"], self.state_dict()
        for name in sorted({*theirs, *ours}):
            sides = [str(list(side[name].shape)) if name in side else "missing" for side in (theirs, ours)]
            if sides[0] != sides[1]:
                raise UserError(f"the checkpoint does not fit the model: {name} is {sides[0]} there, {sides[1]} here")

    def configure_callbacks(self) -> Sequence[Callback]:
        """The writer of predictions, where there is a folder for them."""
        writer = type(self).writer
        predicts = self.trainer.state.fn == "predict" and self.output is not None and writer is not None
        return [writer(self.output)] if predicts else []  # type: ignore[misc, arg-type]

    def shape_like(self, other: Self) -> None:
        """Make the parameters such that they take those of another module of the class, as far as options leave it."""

    def weights_hash(self) -> str:
        """sha256 of every parameter, by name."""
        return state_hash(self)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.h.lr, betas=tuple(self.h.betas))

    def _done(self, step: int, steps: float) -> float:
        """Share of the training behind a step: of its steps or of its time, whichever is nearer to its end."""
        shares = [step / max(1, steps)]
        for clock in (c for c in self.trainer.callbacks if isinstance(c, Timer)):  # type: ignore[attr-defined]
            if (left := clock.time_remaining()) is not None:
                shares.append(clock.time_elapsed() / max(1e-6, clock.time_elapsed() + left))
        return min(1.0, self.trainer.strategy.broadcast(max(shares)) if len(shares) > 1 else max(shares))

    def configure_optimizers(self) -> Any:
        """Its rate rises linearly, then is constant or falls as half a cosine to a tenth, by steps or time."""
        h, optimizer = self.h, self.optimizer()
        total = self.trainer.estimated_stepping_batches if h.lr_decay else 0

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, h.warmup_steps))
            if not h.lr_decay:
                return warm
            return warm * (0.55 + 0.45 * float(np.cos(np.pi * self._done(step, total))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: Any, stage: str) -> None:
        """Log the measures of a batch, for "val" or "test"."""
        raise NotImplementedError

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if "seed" in batch:
            torch.manual_seed(int(batch["seed"][0]))  # of what draws from torch's own generator, as dropout does

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
