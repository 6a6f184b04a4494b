"""What the data modules of both stages share: training's loader, and what of it a checkpoint keeps."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import DataLoader, default_collate

from cortexgen.atlas.template import Template
from cortexgen.data.cohort import Scan
from cortexgen.data.cohorts import Cohort, Roots, folders_of, place
from cortexgen.data.order import Order, OrderedLoader, TrainingSamples
from cortexgen.errors import UserError, reason
from cortexgen.runner.progress import tracked

T = TypeVar("T")


class StageDataModule(LightningDataModule):
    """Base of both stages' data.

    Attributes:
        batch_size: of training, on one device.
        num_workers: loading processes.
        folders: of the cohort, or of several, by name.
        cohorts: what was found in them.
        scans: of all; `problems` says why some can't be used, by name.
        split: the side of each subject: "train", "val" or "test".
    """

    template: Template
    split: dict[str, str]

    def __init__(self, root: Roots, batch_size: int, num_workers: int) -> None:
        super().__init__()
        self.folders = folders_of(root)
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise UserError(f"{name}: expected {least} or more, got {value}")
        self.batch_size, self.num_workers = batch_size, num_workers
        self._seed: int | None = None
        self.cohorts: list[Cohort] = []
        self.scans: list[Scan] = []
        self.problems: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the trainer, which loading processes that are not forked need not be sent."""
        return self.__dict__ | {"trainer": None}

    @property
    def root(self) -> Path:
        """The folder of the first cohort, or the only one."""
        return self.roots[0]

    @property
    def roots(self) -> list[Path]:
        """The folders."""
        return list(self.folders.values())

    def side(self, side: str) -> list[Scan]:
        """The usable scans of "train", "val" or "test"."""
        return [s for s in self.scans if self.split[s.subject] == side and s.name not in self.problems]

    def _leave_out(self, scan: Scan, why: str) -> None:
        self.problems[scan.name] = why
        warnings.warn(f"{scan.name} is left out: {why}", stacklevel=2)

    def _none_readable(self, what: str) -> UserError:
        first = next(iter(self.problems.values()))
        return UserError(f"{place(self.roots)}: none of its {len(self.problems)} {what} can be read: {first}")

    def _require_each(self) -> None:
        """See that something is left of each of several cohorts.

        Raises:
            UserError: with the reason of the first scan, if not.
        """
        for cohort in self.cohorts if len(self.cohorts) > 1 else ():
            if all(scan.name in self.problems for scan in cohort.scans):
                why = self.problems[cohort.scans[0].name]
                raise UserError(f"{cohort.root}: none of its {len(cohort.scans)} scans fits the others: {why}")

    def _readable(self, scans: Iterable[Scan], read: Callable[[Scan], T]) -> list[tuple[Scan, T]]:
        """Scans with what `read` gives of each; those that can't be read are left out."""
        found = []
        for scan in scans:
            try:
                scan.check()
                found.append((scan, read(scan)))
            except Exception as error:
                self._leave_out(scan, reason(error))
        return found

    def _read_once(self, scans: Sequence[Scan], read: Callable[[Scan], object], what: str, unit: str) -> None:
        """Read scans, so that those that can't be read are known before training.

        Processes of one training begin at different scans, so that they share the work of filling a disk cache.
        """
        begin = 0 if self.trainer is None else len(scans) * self.trainer.global_rank // self.trainer.world_size
        self._readable(tracked([*scans[begin:], *scans[:begin]], what, unit=unit, leave=False), read)

    def template_contract(self) -> dict[str, Any]:
        """What weights depend on of the template, in plain types."""
        return {"name": self.template.name, "hash": self.template.hash, "classes": list(self.template.classes)}

    def samples(self, scans: Sequence[Scan], training: bool = False) -> TrainingSamples:
        """The samples of some scans."""
        raise NotImplementedError

    @property
    def seed(self) -> int:
        """Of training: the checkpoint's, or what torch was seeded with in the first process."""
        if self._seed is None:
            seed = torch.initial_seed()
            self._seed = seed if self.trainer is None else self.trainer.strategy.broadcast(seed)
        return self._seed

    @property
    def step_size(self) -> int:
        """Samples of an optimizer step, over all devices."""
        size = min(self.batch_size, max(1, len(self.side("train"))))
        return size if self.trainer is None else size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Seeds stay where generators are seeded: reading them from a device would wait for it in every step."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return moved | {"seed": batch["seed"]} if isinstance(batch, dict) and "seed" in batch else moved

    @staticmethod
    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Samples as a batch, their covariates, where they have some, as a list."""
        covariates = [sample.pop("covariates") for sample in batch if "covariates" in sample]
        return default_collate(batch) | ({"covariates": covariates} if covariates else {})

    def _loading(self) -> dict[str, Any]:
        workers = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return workers | {"collate_fn": self.collate}

    def train_dataloader(self) -> DataLoader:
        """Each training sample once an epoch; with a trainer, in the order of the training that it runs."""
        scans, trainer = self.side("train"), self.trainer
        samples = len(scans)
        size = min(self.batch_size, max(1, samples))
        if trainer is None:
            order = Order(samples, int(torch.randint(2**62, ())))
        else:
            progress, processes = trainer.fit_loop.epoch_loop.batch_progress, trainer.world_size
            share = size * processes, self.step_size, processes, trainer.global_rank
            order = Order(samples, self.seed, *share, done=lambda: progress.current.ready)
        return OrderedLoader(self.samples(scans, training=True), size, sampler=order, **self._loading())

    def _loader(self, scans: Sequence[Scan]) -> DataLoader:
        return DataLoader(self.samples(scans), **self._loading())

    def val_dataloader(self) -> DataLoader:
        """The validation scans, one by one."""
        return self._loader(self.side("val"))

    def test_dataloader(self) -> DataLoader:
        """The test scans; the validation scans if the split has no test set."""
        return self._loader(self.side("test") or self.side("val"))

    def _order(self) -> dict[str, Any]:
        names = "\n".join(scan.name for scan in self.side("train"))
        return {"step_size": self.step_size, "scans": hashlib.sha256(names.encode()).hexdigest()}

    def state_dict(self) -> dict[str, Any]:
        """What training's order depends on besides the number of steps done."""
        return {"seed": self.seed} | self._order()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the checkpoint's seed; say so where the order can't go on."""
        self._seed = state_dict["seed"]
        if self.trainer is None or self.trainer.state.fn != "fit":
            return
        before, now = state_dict, self._order()
        if before["scans"] != now["scans"]:
            rank_zero_warn("the training scans are others than the checkpoint's: their order is not what it would be")
        elif before["step_size"] != now["step_size"]:
            rank_zero_warn(
                f"the checkpoint's steps took {before['step_size']} samples, these take {now['step_size']}: the order "
                "of the samples is not what it would be; batch_size and accumulate_grad_batches choose them"
            )
