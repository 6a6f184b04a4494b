"""What trainings say: our lines instead of Lightning's bars, tips and tables."""

import logging
import warnings
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from cortexgen.cli import main
from cortexgen.runner import progress
from cortexgen.runner.verbosity import speaking
from cortexgen.training.progress import Steps, lightning_hushed

CONF = Path(__file__).parents[1] / "conf"


class TwoNetworks(BoringModel):
    """As a GAN's: two optimizers step for each batch."""

    automatic_optimization, optimizer_steps = False, 2

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.step(batch))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.layer.parameters(), lr=0.1) for _ in range(2)]


class Logged(BoringModel):
    def training_step(self, batch, batch_idx):
        found = super().training_step(batch, batch_idx)
        self.log("train/loss", found["loss"], prog_bar=True)
        return found


@pytest.fixture
def trained(tmp_path, monkeypatch, capfd):
    """Runs a training of 8 steps with a line each; returns what was said."""
    monkeypatch.setattr(progress, "EVERY", ((0.0, 0.0),))

    def run(level="normal", module=Logged, **how):
        root = logging.getLogger("lightning.pytorch")
        monkeypatch.setattr(root, "handlers", [logging.StreamHandler()])  # which writes where this test looks
        with speaking(level), lightning_hushed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            how = {"max_steps": 8, "logger": False, "enable_checkpointing": False, "enable_model_summary": False} | how
            steps = Steps()
            trainer = Trainer(default_root_dir=tmp_path, callbacks=[steps], accelerator="cpu", **how)
            trainer.fit(module())
            trainer.predict(module())
        return capfd.readouterr().err.splitlines()

    return run


def test_steps_are_counted_over_the_whole_training_with_their_loss(trained):
    lines = trained(max_epochs=-1, limit_train_batches=3, limit_val_batches=2, limit_predict_batches=2)
    assert lines[0].startswith("Logged (0.00 million parameters)")
    steps = [line for line in lines if line.startswith("training: ")]
    assert [line.split(" (")[0] for line in steps] == [f"training: {k} of 8" for k in range(1, 9)]
    assert all(", loss " in line for line in steps) and all(line.endswith(" left") for line in steps[:-1])
    assert lines[-1].startswith("predicting: 2 of 2 (100%), in ") and len(lines) == 1 + 8 + 2


def test_accumulated_batches_are_one_step(trained):
    lines = trained(max_steps=-1, max_epochs=2, limit_train_batches=4, accumulate_grad_batches=2, limit_val_batches=0)
    assert lines[4].startswith("training: 4 of 4 (100%)")


def test_the_steps_of_two_optimizers_both_count(trained):
    how = {"module": TwoNetworks, "limit_train_batches": 3, "limit_val_batches": 0, "limit_predict_batches": 1}
    for more, total in (({"max_steps": -1, "max_epochs": 2}, 12), ({"max_steps": 4, "max_epochs": -1}, 4)):
        steps = [line for line in trained(**how, **more) if line.startswith("training: ")]
        assert steps[-1].startswith(f"training: {total} of {total} (100%)")


def test_lightnings_hints_are_there_for_those_who_ask(trained):
    short = {"max_steps": 1, "limit_train_batches": 1, "limit_val_batches": 0, "limit_predict_batches": 1}
    said = {level: "\n".join(trained(level, **short)) for level in ("normal", "verbose", "quiet")}
    assert "GPU available" in said["verbose"] and "`Trainer.fit` stopped" in said["verbose"]
    assert not any(word in said["normal"] for word in ("GPU", "TPU", "Tip", "stopped"))
    assert said["quiet"] == ""


def test_a_quiet_fit_says_nothing(cohort, tmp_path, capfd):
    args = ["fit", "--config", "register.yaml", "--config", CONF / "register.yaml", "--quiet", "--data.root", cohort]
    main([str(arg) for arg in [*args, "--trainer.default_root_dir", tmp_path / "run", "--trainer.max_steps", 1]])
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert capfd.readouterr() == ("", "")
