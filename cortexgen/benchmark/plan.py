"""One model: trained, drawn from or used to register, its costs recorded; what was done is not done again."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cortexgen.benchmark.calls import Cost, call
from cortexgen.benchmark.cohorts import Sides
from cortexgen.benchmark.models import Budget, Fit, Model
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.evaluation.store import digest
from cortexgen.io import write_json
from cortexgen.io.bids import sha256, source_hash
from cortexgen.io.output import read_record
from cortexgen.weights import read_checkpoint
from cortexgen.weights.reading import load

Row = dict[str, Any]


def roots(folders: Sequence[Path]) -> str:
    """Folders of cohorts as an option takes them."""
    return str(folders[0]) if len(folders) == 1 else f"[{','.join(map(str, folders))}]"


@dataclass(frozen=True)
class Plan:
    """What every model gets.

    Attributes:
        out: folder of the benchmark.
        sides: the cohort's people.
        budget: of each model's training.
        samples: brains that a generator draws; None for registrations.
        seed: of trainings and samples.
        threads: of each call.
        devices: of each training.
        registered: what `cortexgen register` made of the people to train on, where that is needed.
        weights: checkpoints that are given, by model, which is then not trained.
    """

    out: Path
    sides: Sides
    budget: Budget
    samples: int | None = None
    seed: int = 0
    threads: int = 1
    devices: int = 1
    registered: Path | None = None
    weights: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def people(self) -> str:
        """How many are on either side, and what their images are told by."""
        images = [
            scan.image
            for side in (self.sides.train, self.sides.held_out)
            for folder in side
            for scan in read_cohort(folder)
        ]
        told = digest([source_hash(image) for image in images])
        return f"{self.sides.trained} and {self.sides.measured} ({told[:12]})"

    @property
    def evaluation(self) -> Path:
        """Folder of what `cortexgen evaluate` writes."""
        return self.out / "evaluation"

    def folder(self, name: str) -> Path:
        """Of a model."""
        return self.out / "models" / name

    def results(self, name: str) -> Path:
        """A model's brains, or registrations."""
        return self.folder(name) / ("registered" if self.samples is None else "brains")

    def run(self, name: str, model: Model) -> Row:
        """Train a model, and draw from it or register with it, unless that was done; returns its record.

        A failure is a record with "status" "failed" and its "reason", so that the others go on.
        """
        path, key = self.folder(name) / "record.json", self._key(name, model)
        record = read_record(path)
        if record.get("key") != key:
            shutil.rmtree(self.folder(name), ignore_errors=True)  # what was begun of something else; see `check`
            record = {"key": key, "model": name, "title": model.title, "source": model.source, "training": []}
        if record.get("status") == "ok":
            return record
        try:
            paths = self._trained(name, model, record, path)
            files: list[str | Path] = [paths[fit.name] for fit in _taken(model)]
            record["parameters"] = sum(_parameters(path) for path in [*files, *model.shipped])
            record["use"] = self._use(name, model, paths)._asdict()
            record |= {"status": "ok", "reason": ""}
        except (UserError, OSError) as error:
            record |= {"status": "failed", "reason": str(error)}
        write_json(path, record)
        return record

    def check(self, models: Mapping[str, Model]) -> None:
        """See that nothing that was finished would be lost, and that weights that are given are the models'.

        Raises:
            UserError: if there is a result of other settings, or a file is no model's.
        """
        for name, model in models.items():
            if name in self.weights:
                _check_weights(name, model, self.weights[name])
            record = read_record(self.folder(name) / "record.json")
            new, old = self._key(name, model), record.get("key", {})
            if record.get("status") == "ok" and old != new:
                what = next(key for key in new if old.get(key) != new[key])
                raise UserError(
                    f"{self.folder(name)}: was made with {what} {old.get(what)}, now it is {new[what]}; remove that "
                    "folder, or choose another one to write to"
                )

    def before(self, known: Mapping[str, Model]) -> dict[str, Row]:
        """Records of earlier runs that succeeded, with other budgets too."""
        found = {name: read_record(self.folder(name) / "record.json") for name in known}
        return {name: record for name, record in found.items() if record.get("status") == "ok"}

    def _key(self, name: str, model: Model) -> Row:
        """What a record depends on."""
        given = self.weights.get(name)
        budget = "weights of " + sha256(given)[:12] if given else str(self.budget) if model.fits else ""
        budget = "shipped weights" if model.shipped and not given else budget
        key = {"budget": budget, "samples": self.samples, "seed": self.seed, "people": self.people}
        if model.registered and self.registered is not None:
            key["registrations"] = sha256(self.registered / "registration.tsv")[:12]
        return key

    def _trained(self, name: str, model: Model, record: Row, path: Path) -> dict[str, Path]:
        """The checkpoint of each of a model's trainings by its name, and what was registered; records costs."""
        paths = {} if self.registered is None else {"registered": self.registered}
        if name in self.weights:
            return paths | {_taken(model)[0].name: self.weights[name]}
        done = {entry["fit"] for entry in record["training"] if entry["finished"]}
        for fit in model.fits:
            run = self.folder(name) / fit.name
            last = run / "checkpoints" / "last.ckpt"
            if fit.name not in done:
                entry: Row = {"fit": fit.name, "finished": False, "resumed": last.is_file()}
                try:
                    entry |= call(self._fit(fit, run, last, paths), run.with_suffix(".log"), self.threads)._asdict()
                    entry |= {"finished": True, "batches": batches_of(last)}
                finally:
                    record["training"].append(entry)
                    write_json(path, record)
            paths[fit.name] = last
        return paths

    def _fit(self, fit: Fit, run: Path, last: Path, paths: Mapping[str, Path]) -> list[object]:
        """Words of a training, which goes on where there is a checkpoint of it."""
        words: list[object] = ["fit"]
        for config in fit.configs:
            words += ["--config", config]
        data = roots(self.sides.train) if fit.data == "train" else paths["registered"]
        words += ["--data.root", data, "--trainer.default_root_dir", run, "--seed_everything", self.seed]
        words += ["--trainer.devices", self.devices, "--wandb", "off"]
        words += [str(option).format(**paths) for option in fit.options]
        words += self.budget.words() if fit.limited else []
        return [*words, *(["--ckpt_path", "last"] if last.is_file() else [])]

    def _use(self, name: str, model: Model, paths: Mapping[str, Path]) -> Cost:
        out, log = self.results(name), self.folder(name) / "use.log"
        if self.samples is None:
            words: list[object] = ["register", roots(self.sides.held_out), out]
        else:
            words = ["generate", out, "--num_samples", self.samples, "--seed", self.seed]
        for option, value in model.given.items():
            words += [f"--{option}", str(value).format(**paths)]
        return call(words, log, self.threads)


def _taken(model: Model) -> list[Fit]:
    """The trainings whose weights a model is used with: PIRATE+'s denoiser is where another one began."""
    options = " ".join(map(str, model.given.values()))
    return [fit for fit in model.fits if f"{{{fit.name}}}" in options]


def _check_weights(name: str, model: Model, path: Path) -> None:
    if len(taken := _taken(model)) != 1:
        raise UserError(f"--weights: {name} has {len(taken)} trainings whose weights could be given, expected one")
    kind, wanted = type(load(path)).__name__, taken[0].class_name
    if kind != wanted:
        raise UserError(f"--weights: {path} holds {kind}, {name} is {wanted}")


def _parameters(path: str | Path) -> int:
    """Numbers that were trained."""
    return sum(p.numel() for p in load(path).parameters() if p.requires_grad)


def batches_of(path: Path) -> int:
    """Batches that a training has seen, by its checkpoint."""
    progress = read_checkpoint(path)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    return int(progress["total"]["completed"])
