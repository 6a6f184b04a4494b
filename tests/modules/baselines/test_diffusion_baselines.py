"""Latent diffusion, MedSyn and cDPM through the command line: they learn, draw, go on, and run on two processes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import pytest
import torch

from cortexgen.data.images import ImageDataModule
from cortexgen.errors import UserError
from cortexgen.weights import load_checkpoint

CONF = Path(__file__).parents[2] / "conf" / "baselines.yaml"
SMALL = {
    "latentdiffusion": {"scale": 0.06, "lr": 3e-3, "unet_lr": 3e-3, "autoencoder_share": 0.6, "steps": 10},
    "medsyn": {"scale": 0.05, "multipliers": "[1,2,2]", "middle": 1, "lr": 3e-3, "steps": 10},
    "cdpm": {"scale": 0.1, "multipliers": "[1,2,2]", "blocks": 1, "slices": 8, "lr": 3e-3, "steps": 8},
}
STEPS = {"latentdiffusion": 150, "medsyn": 80, "cdpm": 200}


def words(name, root, folder, steps, **trainer):
    options = {f"--model.{key}": value for key, value in SMALL[name].items()}
    options |= {"--data.root": root, "--trainer.default_root_dir": folder, "--trainer.max_epochs": -1}
    options |= {"--trainer.max_steps": steps, "--trainer.limit_train_batches": 1.0}
    options |= {"--trainer.check_val_every_n_epoch": 1000}
    options |= {f"--trainer.{key}": value for key, value in trainer.items()}
    return [str(word) for option in options.items() for word in option]


@pytest.fixture(scope="module", params=list(SMALL))
def trained(request, cohort, verb, tmp_path_factory):
    """One of them, trained on three subjects: its name, folder and module."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param) / "run"
    verb("fit", f"baselines/{name}.yaml", *words(name, cohort, folder, STEPS[name], precision="bf16-mixed"))
    module = load_checkpoint(folder / "checkpoints" / "last.ckpt")[0].eval()
    assert module.steps == SMALL[name]["steps"]  # the configuration's, which the checkpoint keeps
    return SimpleNamespace(name=name, folder=folder, module=module)


@pytest.fixture(scope="module")
def data(cohort):
    module = ImageDataModule(cohort, crop="brain", val=1, test=1)
    module.setup("fit")
    return module


def fresh(module):
    """The same with random weights, its own scale of latents aside."""
    torch.manual_seed(0)
    other = type(module)(**module.hparams)
    other.contract, other.steps = module.contract, module.steps
    if hasattr(other, "latent_scale"):
        other.latent_scale.copy_(module.latent_scale)
    return other.eval()


def test_it_learns(trained, data):
    module, images = trained.module, torch.stack([data.reader.image(scan) for scan in data.side("train")])
    batch = {"image": images, "covariates": [scan.covariates for scan in data.side("train")]}
    losses, distances = [], []
    for each in (module, fresh(module)):
        logged = {}
        each.log = lambda name, value, logged=logged, **_: logged.update({name: float(value)})
        each.log_dict = lambda values, logged=logged, **_: logged.update({k: float(v) for k, v in values.items()})
        with torch.no_grad():
            each._evaluate(batch, "val")
            drawn = each.sample(torch.Generator().manual_seed(0), {"age": 40.0}).float()
        losses.append(logged["val/loss"])
        distances.append(float((images - drawn).square().mean(dim=(1, 2, 3, 4)).min() / images.square().mean()))
        del each.log, each.log_dict
    assert losses[0] < 0.6 * losses[1]
    assert distances[1] > 1 and distances[0] < 0.7 * distances[1]  # an empty image is 1 from the brains
    if trained.name != "cdpm":  # whose brightness comes from its first steps, which so short a training leaves open
        assert distances[0] < 1


def test_a_sample_is_on_the_grid_and_of_its_number_alone(trained, data):
    module = trained.module
    a, b, c = (module.generator.draw(k) for k in (0, 0, 1))
    assert torch.equal(a.image, b.image) and not torch.equal(a.image, c.image)
    assert a.image.shape[1:] == tuple(data.image_grid.shape)


def test_it_predicts_and_generates(trained, cohort, verb, tmp_path):
    from cortexgen.cli import run

    folder, name = trained.folder, trained.name
    common = words(name, cohort, folder, STEPS[name])
    drawn = ("--ckpt_path", "last", "--output", tmp_path / "a", "--model.num_samples", 2)
    verb("predict", f"baselines/{name}.yaml", *common, *drawn)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    call = ["generate", tmp_path / "b", "--generator", "images", "--checkpoint", checkpoint, "--num-samples", 2]
    run([str(word) for word in [*call, "--steps", SMALL[name]["steps"]]])
    (first, _), (again, _) = (sorted((tmp_path / side).rglob("*_T1w.nii.gz")) for side in "ab")
    assert first.name == again.name and nib.load(again).shape == nib.load(next(cohort.rglob("*_T1w.nii.gz"))).shape
    with pytest.raises(UserError, match=r"correction: .* draws without it"):
        run([str(word) for word in [*call[:1], tmp_path / "c", *call[2:], "--correction", 1]])


@pytest.mark.parametrize("name", SMALL)
def test_a_training_that_diverges_says_so(name, cohort, verb, tmp_path):
    rates = ["--model.lr", 1e30] + (["--model.unet_lr", 1e30] if name == "latentdiffusion" else [])
    with pytest.raises(UserError, match=r"the training diverged: its loss is (nan|inf) at step \d+"):
        verb("fit", f"baselines/{name}.yaml", *words(name, cohort, tmp_path, 20), *rates)


@pytest.mark.parametrize(
    "name", ["latentdiffusion", *(pytest.param(name, marks=pytest.mark.slow) for name in ("medsyn", "cdpm"))]
)
def test_two_processes_train_as_one(name, cohort, tmp_path):
    """Both of them draw samples of their own; their weights stay the same, and the phases of one are the other's."""
    call = [sys.executable, "-m", "cortexgen", "fit", "--config", f"baselines/{name}.yaml", "--config", CONF]
    call += words(name, cohort, tmp_path, 4, devices=2, accelerator="cpu", precision="bf16-mixed")
    ran = subprocess.run([*map(str, call), "--data.batch_size", "1"], env=os.environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    module, steps = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert steps == 4
    assert all(torch.isfinite(p).all() for p in module.parameters())
