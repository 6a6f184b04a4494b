"""What both stages share: the contract with the data, the optimizer, and the record of a run's output."""

import hashlib
import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule

from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.bids import check_output, describe_dataset


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
    if data and weights.get("preprocessing") != data.get("preprocessing"):
        warnings.warn(
            f"the checkpoint was trained on data preprocessed as {_side(weights.get('preprocessing'))}, "
            f"these are {_side(data.get('preprocessing'))}",
            stacklevel=2,
        )


class StageModule(LightningModule):
    """Base of both stages.

    Attributes:
        contract: what the weights depend on (template, grid, ...); lives in the checkpoint and wins over the data.
        output: folder that `predict` writes to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.contract: dict[str, Any] = {}
        self.output: Path | None = None
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
        found = self._data_contract()
        if self.contract:
            check_contract(self.contract, found)
        else:
            self.contract = found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cortexgen"] = self.contract

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "cortexgen" not in checkpoint:
            raise UserError("the checkpoint was not written by cortexgen")
        self.contract = checkpoint["cortexgen"]
        check_contract(self.contract, self._data_contract())

    def weights_hash(self) -> str:
        """sha256 of every parameter, by name."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value.detach().cpu().float().numpy()).tobytes())
        return digest.hexdigest()

    def adam(self, lr: float, betas: tuple[float, float], warmup_steps: int, decay: bool) -> Any:
        """Adam with a linear warm-up, then constant or falling to a tenth as half a cosine by the last step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=lr, betas=betas)
        total = self.trainer.estimated_stepping_batches if decay else 0

        def factor(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, warmup_steps))
            return warm * (0.55 + 0.45 * float(np.cos(np.pi * min(1.0, step / total)))) if decay else warm

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def open_output(self, name: str, parameters: Mapping[str, Any]) -> Path:
        """Make the output folder on the first process; the others wait.

        Raises:
            UserError: if there is no folder, it can't be written to, or holds what other weights or settings made.
        """
        if self.output is None:
            raise UserError("predict needs a folder to write to: give --output OUT")
        if self.trainer.is_global_zero:
            open_run(self.output, name, self, parameters)
        self.trainer.strategy.barrier()
        return self.output


def open_run(root: Path, name: str, module: StageModule, parameters: Mapping[str, Any]) -> None:
    """Make a folder for a module's output, or go on in one that the same weights and settings made.

    Raises:
        UserError: if it can't be written to, or holds something else.
    """
    made_by = {
        "Description": name,
        "Weights": module.weights_hash(),
        "Template": module.contract["template"]["hash"],
        "Parameters": dict(parameters),
    }
    description = root / "dataset_description.json"
    if description.is_file():
        _refuse_other_run(root, json.loads(description.read_text(encoding="utf-8")), made_by)
        return
    if root.is_dir() and any(root.iterdir()):
        raise UserError(f"{root}: holds other files; choose a new or empty folder")
    check_output(root)
    describe_dataset(root, name, {**made_by, "Command": _command()})


def _command() -> str:
    return " ".join(["cortexgen", *sys.argv[1:]]) if Path(sys.argv[0]).name in ("cortexgen", "__main__.py") else ""


def _refuse_other_run(root: Path, found: dict[str, Any], made_by: dict[str, Any]) -> None:
    before = (found.get("GeneratedBy") or [{}])[0]
    old, new = before | before.get("Parameters", {}), made_by | made_by["Parameters"]
    for name in new:
        if name in made_by["Parameters"] and name not in old:
            raise UserError(
                f"{root}: was begun by an earlier version ({old.get('Version', 'unknown')}), which did not record its "
                f"{name}; choose another folder"
            )
        if name != "Parameters" and old.get(name) != new[name]:
            ours, theirs = f"{new[name]!s:.40}", f"{old.get(name)!s:.40}"
            raise UserError(
                f"{root}: holds another run, with {name} {theirs}; this one has {ours}; choose another folder"
            )
