"""An interrupted training ends as one that was not; weights are kept raw and averaged; large cohorts are validated."""

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from torch.utils.data import default_collate

from cortexgen.cli import run
from cortexgen.data.fields import FieldDataModule
from cortexgen.data.order import TrainingSamples
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.modules import DiffuseMorphModule, FieldDiffusionModule
from cortexgen.modules.base import StageModule
from cortexgen.training import resuming
from cortexgen.training.resuming import set_place

TESTS = Path(__file__).parent
STEPS = 7
OPTIONS = {
    "register.yaml": ("--data.augmentation", "scanner", "--data.pairs", 0.5, "--data.patch", "[12, 12, 12]"),
    "generate.yaml": ("--model.covariates", "[age, sex]", "--model.dropout", 0.2, "--data.batch_size", 1),
    "appearance.yaml": ("--data.batch_size", 1),
}
Fit = Callable[..., object]


@pytest.fixture
def fit(cohort, registered, monkeypatch) -> Fit:
    """Trains a preset on three subjects, two to a step, writing last.ckpt before each batch."""
    monkeypatch.setattr(resuming, "INTERVAL", 0)

    def call(config, folder, *args, steps=STEPS):
        stage = config.removesuffix(".yaml")
        root = registered[1] if stage == "generate" else cohort
        common = ["--config", config, "--config", TESTS / "conf" / f"{stage}.yaml", "--data.root", root]
        common += ["--trainer.default_root_dir", folder, "--trainer.limit_train_batches", 1.0]
        common += ["--trainer.max_epochs", -1, "--trainer.max_steps", steps, "--trainer.precision", "32-true"]
        common += ["--trainer.accumulate_grad_batches", 2, "--model.lr_decay", "false", *OPTIONS[config]]
        common += ["--data.registered", registered[1]] if stage == "appearance" else []
        return run(["fit", *map(str, [*common, *args])])

    return call


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(a, b, path=""):
    """Equal to the last bit, tensors in whatever they are nested in."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
    if isinstance(a, dict | list | tuple):
        for key in a if isinstance(a, dict) else range(len(a)):
            assert_same(a[key], b[key], f"{path}/{key}")
    else:
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b, path


def assert_same_training(folder, expected):
    a, b = last(folder), last(expected)
    for part in ("global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert_same(a[part], b[part], part)
    loops = [c["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] for c in (a, b)]
    assert loops[0] == loops[1]


@pytest.mark.parametrize(
    ("config", "batches", "workers"), [("register.yaml", 8, 0), ("generate.yaml", 7, 2), ("appearance.yaml", 7, 0)]
)
def test_an_interrupted_training_ends_as_one_that_was_not(config, batches, workers, fit, tmp_path, monkeypatch):
    """Killed within accumulated batches or after a step, in the middle of an epoch; stopped, and given more steps."""
    whole, killed, stopped = tmp_path / "whole", tmp_path / "killed", tmp_path / "stopped"
    fit(config, whole)
    ended, done = StageModule.on_train_batch_end, []

    def dies(module, *args):
        ended(module, *args)
        done.append(1)
        if len(done) == batches:
            raise RuntimeError("killed")

    with monkeypatch.context() as context, pytest.raises(RuntimeError, match="killed"):
        context.setattr(StageModule, "on_train_batch_end", dies)
        fit(config, killed)
    assert last(killed)["global_step"] == 3
    fit(config, killed, "--ckpt_path", "last", "--data.num_workers", workers)
    assert_same_training(killed, whole)
    fit(config, stopped, steps=3)
    fit(config, stopped, "--ckpt_path", "last")
    assert_same_training(stopped, whole)
    rows = csv.DictReader((stopped / "logs" / "version_1" / "metrics.csv").read_text().splitlines())
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(3, STEPS))


def test_raw_and_averaged_weights_are_kept_and_pictures_and_validations_see_averages(fit, tmp_path, monkeypatch):
    raw, drawn, validated = [], [], []

    def weights(module):
        return torch.cat([p.detach().flatten() for p in module.parameters()]).clone()

    def stepped(module, *args):
        if len(raw) < module.trainer.global_step:
            raw.append(weights(module))

    monkeypatch.setattr(StageModule, "on_train_batch_end", stepped)
    monkeypatch.setattr(FieldDiffusionModule, "example", lambda module: drawn.append((len(raw), weights(module))))
    evaluate = FieldDiffusionModule.validation_step

    def validate(module, *args):
        if not module.trainer.sanity_checking:
            validated.append((len(raw), weights(module)))
        evaluate(module, *args)

    monkeypatch.setattr(FieldDiffusionModule, "validation_step", validate)
    fit("generate.yaml", tmp_path, "--model.lr", 0.01)
    averages = [raw[0]]
    for n, new in enumerate(raw[1:], 1):
        averages.append(((1 + n) * averages[-1] + 9 * new) / (10 + n))  # far from the .99 of a long training
    checkpoint = last(tmp_path)
    loaded = FieldDiffusionModule.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    names = [name for name, _ in loaded.named_parameters()]
    kept = torch.cat([checkpoint["current_model_state"][name].flatten() for name in names])
    assert torch.equal(kept, raw[-1]) and (kept - averages[-1]).abs().max() > 1e-4
    assert len(drawn) > 1 and len(validated) > 1
    for step, seen in [*drawn, *validated, (STEPS, weights(loaded))]:
        torch.testing.assert_close(seen, averages[step - 1], atol=1e-6, rtol=0)


def test_a_checkpoint_being_written_when_the_process_is_killed_leaves_the_one_before(fit, tmp_path, monkeypatch):
    fit("generate.yaml", tmp_path, steps=1)
    save = TorchCheckpointIO.save_checkpoint

    def half(self, checkpoint, path, *args):
        save(self, checkpoint, path, *args)
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
        raise KeyError("killed")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", half)
    with pytest.raises(KeyError, match="killed"):
        fit("generate.yaml", tmp_path, "--ckpt_path", "last", steps=2)
    assert last(tmp_path)["global_step"] == 1
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_training_that_is_told_to_end_has_not_succeeded(fit, tmp_path, monkeypatch):
    step = FieldDiffusionModule.training_step

    def told(self, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(FieldDiffusionModule, "training_step", told)
    with pytest.raises(SystemExit) as ended:
        fit("generate.yaml", tmp_path / "run")
    assert ended.value.code == 143


def test_other_scans_or_steps_than_the_checkpoints_are_named(fit, tmp_path, recwarn):
    fit("generate.yaml", tmp_path, steps=1)
    before = last(tmp_path)["FieldDataModule"]["seed"]
    fit("generate.yaml", tmp_path, "--ckpt_path", "last", "--seed_everything", 5, steps=2)
    assert last(tmp_path)["FieldDataModule"]["seed"] == before  # the run's own
    assert not [w for w in recwarn if "checkpoint's" in str(w.message)]
    fit("generate.yaml", tmp_path, "--ckpt_path", "last", "--data.batch_size", 2, steps=3)
    assert [w for w in recwarn if "checkpoint's steps took 2 samples, these take 4" in str(w.message)]
    with pytest.raises(UserError, match=r"another side of the split .*sub-0003 \(train, now val\)"):
        fit("generate.yaml", tmp_path, "--ckpt_path", "last", "--data.val_subjects", "[sub-0003]", steps=4)
    fewer = "sub-000[1245]_*_desc-velocity_field.nii*"
    fit("generate.yaml", tmp_path, "--ckpt_path", "last", "--data.fields", fewer, steps=4)
    assert [w for w in recwarn if "training scans are others than the checkpoint's" in str(w.message)]


def test_options_that_the_checkpoint_overrides_are_named(fit, tmp_path, recwarn):
    fit("register.yaml", tmp_path / "run", steps=1)
    assert not [w for w in recwarn if "instead of" in str(w.message)]
    fit("register.yaml", tmp_path / "run", "--ckpt_path", "last", steps=2)
    assert not [w for w in recwarn if "instead of" in str(w.message)]
    fit("register.yaml", tmp_path / "run", "--ckpt_path", "last", "--model.smoothness_weight", 9.5, steps=3)
    (line,) = [str(w.message) for w in recwarn if "instead of" in str(w.message)]
    assert "smoothness_weight 4.0 instead of 9.5" in line and ", " not in line


@pytest.mark.parametrize(("devices", "accumulated"), [(1, 4), (2, 2), (4, 1)])
def test_another_number_of_devices_goes_on_at_the_same_sample(devices, accumulated):
    """Step 7 of epochs of 20 samples, 4 to a step: 8 samples into the second."""
    batches = 20 // devices
    trainer = SimpleNamespace(num_training_batches=batches, accumulate_grad_batches=accumulated)
    trainer.fit_loop = SimpleNamespace(setup_data=lambda: None)
    loops = {"epoch_progress": {}, "epoch_loop.batch_progress": {}, "epoch_loop.val_loop.state_dict": {}}
    set_place(trainer, {"global_step": 7, "loops": {"fit_loop": loops}})
    assert loops["epoch_loop.batch_progress"]["current"]["ready"] * devices == 8
    assert loops["epoch_loop.batch_progress"]["total"]["completed"] * devices == 28
    assert loops["epoch_progress"]["current"]["processed"] == 1


@pytest.mark.parametrize("config", ["register.yaml", "generate.yaml"])
def test_a_large_cohort_is_validated_and_saved_before_an_epoch_ends(config, cohort, registered, tmp_path, monkeypatch):
    """2400 subjects, of whom nothing is computed: where the presets validate, and that it can be gone on from there."""
    module, data = {
        "register.yaml": (DiffuseMorphModule, RegistrationDataModule),
        "generate.yaml": (FieldDiffusionModule, FieldDataModule),
    }[config]
    sides = data.side
    monkeypatch.setattr(data, "side", lambda self, side: sides(self, side) * (800 if side == "train" else 1))
    monkeypatch.setattr(TrainingSamples, "__getitem__", lambda self, key: {"name": "sub-0001"})
    monkeypatch.setattr(FieldDataModule, "collate", staticmethod(default_collate))
    monkeypatch.setattr(module, "training_step", lambda self, *_: next(self.parameters()).sum())
    monkeypatch.setattr(module, "example", lambda self: None)
    monkeypatch.setattr("cortexgen.modules.fielddiffusion.field_statistics", lambda *_: {})
    seen = []

    def validate(self, *_):
        seen.append(self.trainer.global_step)
        self.log_dict({"val/ncc": 1.0 / len(seen), "val/loss": float(len(seen))}, batch_size=1)

    monkeypatch.setattr(module, "validation_step", validate)
    stage = config.removesuffix(".yaml")
    small = tmp_path / "small.yaml"
    options = yaml.safe_load((TESTS / "conf" / config).read_text())
    options["trainer"] = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    small.write_text(yaml.safe_dump(options))
    words = [
        "--data.root",
        registered[1] if stage == "generate" else cohort,
        "--trainer.default_root_dir",
        tmp_path / "run",
    ]
    words += ["--trainer.max_steps", 600, "--trainer.precision", "32-true"]
    words += ["--model.prior_modes", 0] if stage == "generate" else ["--data.cache", "none"]
    run(["fit", "--config", config, "--config", str(small), *map(str, words)])
    assert seen == [250, 500]
    preset = yaml.safe_load((TESTS.parent / "configs" / config).read_text())["trainer"]
    assert 8 <= preset["max_steps"] // preset["val_check_interval"] <= 10
    assert last(tmp_path / "run")["global_step"] == 600
    assert torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == 250
