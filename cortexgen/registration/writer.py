"""Writes the registrations that `predict` returns."""

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer

from cortexgen.contracts import Failed, Registered
from cortexgen.data.cohort import Scan
from cortexgen.data.registered import Record, kept_row, recorded_sides, write_registrations
from cortexgen.errors import UserError, reason
from cortexgen.io.bids import Row
from cortexgen.registration.files import write_registered, write_template
from cortexgen.runner.writer import RunWriter


class RegistrationWriter(RunWriter):
    """Writes each scan's results, and at the end the table of all.

    A scan that was done of the same files before is skipped; one that fails is listed with its reason.
    """

    def __init__(self, output: Path) -> None:
        super().__init__(output)
        self.failures: dict[str, str] = {}

    def begin(self, trainer: Trainer, module: Any, made_by: dict[str, Any]) -> None:
        self._check_split(module.data.split)
        module.skip = self._done

    def _done(self, scan: Scan) -> bool:
        return Record(self.output, scan).done() is not None

    def _check_split(self, split: dict[str, str]) -> None:
        """See that subjects are on the side that they were on when this folder was begun."""
        for subject, sides in recorded_sides(self.output).items():
            ours = split.get(subject)
            if ours is not None and sides != {ours}:
                there = ", ".join(sorted(sides))
                raise UserError(
                    f"{self.output}: {subject} is on the side {there} there, now on {ours}; give the same --data.val "
                    "and --data.test, or another folder"
                )

    def write(self, module: Any, prediction: Registered | Failed | None, batch: Any) -> None:
        if prediction is None:
            return
        scan = module.data.scans[batch["index"]]

        def make() -> Row:
            if isinstance(prediction, Failed):
                raise UserError(prediction.reason)
            pairs = module.pairs
            write_template(self.output, prediction.moving)
            return write_registered(self.output, scan, prediction, pairs.info, pairs.whole, module.frames)

        try:
            kept_row(self.output, scan, make, module.data.split.get(scan.subject))
        except Exception as error:
            self.failures[scan.name] = reason(error)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join what all processes found."""
        module: Any = pl_module
        parts: list[dict[str, str]] = [self.failures]
        if trainer.world_size > 1:
            parts = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, self.failures)
        module.failures = {name: why for part in parts for name, why in part.items()}
        if trainer.is_global_zero:
            write_registrations(self.output, module.data.scans, module.failures, module.data.split)
