"""VAE-GAN, alpha-WGAN and HA-GAN: what they learn, and that they train, resume and draw through the command line."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cortexgen.cli import run
from cortexgen.data.images import ImageDataModule
from cortexgen.errors import UserError
from cortexgen.io import read_volume
from cortexgen.modules.baselines import HAGAN, VAEGAN, AlphaWGAN
from cortexgen.modules.baselines.adversarial import centred, gradient_penalty
from cortexgen.modules.baselines.hagan import slabs
from cortexgen.weights import load_checkpoint, save_weights, start
from cortexgen.weights.reading import load_image_generator

HERE = Path(__file__).parent
KINDS = {"vaegan": VAEGAN, "alphawgan": AlphaWGAN, "hagan": HAGAN}
SCALE = 0.0625
every = pytest.mark.parametrize("name", KINDS)


def options(name, cohort, folder, *args):
    where = ("--data.root", cohort, "--trainer.default_root_dir", folder)
    return (f"baselines/{name}.yaml", *where, "--model.scale", SCALE, "--trainer.num_sanity_val_steps", 0, *args)


@pytest.fixture(scope="module")
def trained(cohort, verb, tmp_path_factory):
    """A run folder of each after two batches, in bfloat16."""
    folders = {name: tmp_path_factory.mktemp(name) / "run" for name in KINDS}
    for name, folder in folders.items():
        verb("fit", *options(name, cohort, folder, "--trainer.precision", "bf16-mixed"))
    return folders


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def data(cohort):
    module = ImageDataModule(cohort, crop="brain", val=1)
    module.setup("fit")
    return module


@every
def test_a_checkpoint_is_whole_and_its_weights_are_drawn_from(name, trained, cohort, verb, tmp_path):
    content = torch.load(last(trained[name]), weights_only=True)
    module, steps = load_checkpoint(last(trained[name]))
    assert type(module) is KINDS[name] and steps == 2 * module.optimizer_steps
    assert list(content["hyper_parameters"]["shape"]) == module.contract["grid"]["shape"]
    where = options(name, cohort, trained[name], "--ckpt_path", "last")
    first, second = (verb("validate", *where).trainer.callback_metrics["val/loss"] for _ in range(2))
    assert first == second > 0
    for out in ("a", "b"):
        verb("predict", *where, "--output", tmp_path / out, "--model.num_samples", 2)
    saved = tmp_path / "weights.safetensors"
    save_weights(saved, module)
    assert load_image_generator(saved).weights_hash() == module.weights_hash()
    run(["generate", str(tmp_path / "c"), "--generator", "images", "--checkpoint", str(saved), "--num-samples", "2"])
    files = [sorted((tmp_path / out).rglob("*T1w.nii.gz")) for out in "abc"]
    assert [len(each) for each in files] == [2, 2, 2]
    assert files[0][0].read_bytes() == files[1][0].read_bytes() != files[0][1].read_bytes()
    image, grid = read_volume(files[2][0])
    assert list(grid.shape) == module.contract["image_grid"]["shape"] and 0 <= image.min() < image.max() <= 1


@every
def test_an_interrupted_training_ends_as_one_that_was_not(name, cohort, verb, tmp_path):
    """Two batches are an epoch; interrupted within the second."""
    steps = KINDS[name].optimizer_steps

    def fit(folder, batches, *args):
        length = ("--trainer.max_epochs", -1, "--trainer.max_steps", batches * steps)
        verb("fit", *options(name, cohort, folder, "--trainer.limit_train_batches", 1.0, *length, *args))
        return torch.load(last(folder), weights_only=True)

    whole = fit(tmp_path / "whole", 5)
    assert fit(tmp_path / "parts", 3)["global_step"] == 3 * steps
    parts = fit(tmp_path / "parts", 5, "--ckpt_path", "last")
    assert parts["global_step"] == whole["global_step"] == 5 * steps
    assert parts["state_dict"].keys() == whole["state_dict"].keys()
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, parts["state_dict"][key]), key
    for ours, theirs in zip(parts["optimizer_states"], whole["optimizer_states"], strict=True):
        for k, state in theirs["state"].items():
            assert all(torch.equal(state[key], ours["state"][k][key]) for key in state)


def processes(folder, cohort, devices):
    """The states that trainings on so many processes end with, a list for each process."""
    small = ("--config", HERE.parents[1] / "conf" / "baselines.yaml", "--trainer.limit_train_batches", 1)
    more = ("--data.batch_size", 2 // devices, "--trainer.devices", devices, "--trainer.accelerator", "cpu")
    fits = []
    for name in KINDS:
        config, *rest = options(name, cohort, folder / name, *more, "--trainer.limit_val_batches", 0)
        fits.append(["fit", "--config", config, *small, *rest])
    (folder / "arguments.json").write_text(json.dumps([[str(word) for word in words] for words in fits]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": 0}
    running = []
    for rank in range(devices):
        place = shared | {"RANK": rank, "LOCAL_RANK": rank} if devices > 1 else {}
        command = [
            sys.executable,
            str(HERE / "gan_rank.py"),
            str(folder / f"{rank}.pt"),
            str(folder / "arguments.json"),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | {key: str(value) for key, value in place.items()}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        running.append(subprocess.Popen(command, env=environment, **streams))
    texts = [process.communicate(timeout=600)[0] for process in running]
    assert not any(process.returncode for process in running), texts
    return [dict(zip(KINDS, torch.load(folder / f"{rank}.pt"), strict=True)) for rank in range(devices)]


def test_two_processes_are_one_network(cohort, tmp_path):
    """What both step with is the same; without batch statistics it is what one with both images steps with."""
    (tmp_path / "two").mkdir()
    (tmp_path / "one").mkdir()
    (first, second), (one,) = (processes(tmp_path / n, cohort, k) for n, k in (("two", 2), ("one", 1)))
    for name in KINDS:
        for key, value in first[name]["parameters"].items():
            assert torch.equal(value, second[name]["parameters"][key]), (name, key)
    for ours, theirs in zip(first["hagan"]["optimizers"], one["hagan"]["optimizers"], strict=True):
        gradients = [torch.cat([s["exp_avg"].flatten() for s in each.values()]) for each in (ours, theirs)]
        assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[1].norm()


def untrained(name, data, **more):
    torch.manual_seed(0)
    module = KINDS[name](scale=SCALE, shape=data.grid.shape, **more)
    module.contract = data.contract()
    return module


def train(module, data, steps):
    """Some steps on four brains, without a trainer; the losses that were logged."""
    optimizers, losses = module.configure_optimizers(), {}
    module.optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    module.log = lambda key, value, **_: losses.setdefault(key, []).append(float(value))
    scans = data.samples(data.side("train"))
    batch = data.collate([scans.sample(k, None) for k in range(4)])
    for k in range(steps):
        module.training_step(batch | {"seed": 4 * k + torch.arange(4)}, k)
    return batch["image"], losses


@pytest.mark.parametrize(
    ("name", "steps", "rates"),
    [
        ("vaegan", 40, {"lr": 2e-3}),
        ("alphawgan", 20, {"lr": 1e-3, "reconstruction_weight": 100.0}),
        ("hagan", 20, {"lr": (2e-3, 2e-3, 2e-3)}),
    ],
)
def test_it_learns_brains(name, steps, rates, data):
    """Images come back nearer than they did; a sample looks like the mean brain, as noise does not."""
    module = untrained(name, data, **rates)
    images = torch.stack([data.reader.image(scan) for scan in data.side("train")])[:4]

    def measured():
        module.eval()
        with torch.no_grad():
            again = module.images(module.reconstruct(module.volumes(images)), images.shape[2:])
            sample = module.sample(torch.Generator().manual_seed(1), {})
        module.train()
        pair = torch.stack([sample.flatten(), images.mean(dim=0).flatten()])
        return float((again - images).abs().mean()), float(torch.corrcoef(pair)[0, 1])

    error, alike = measured()
    assert alike < 0.2
    trained_on, _ = train(module, data, steps)
    assert torch.equal(trained_on, images)
    after, looks = measured()
    assert after < 0.6 * error
    assert looks > 0.3


def test_a_linear_critic_has_its_weights_norm_as_slope_everywhere():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(24, 1))
    real, fake = torch.randn(3, 1, 2, 3, 4), torch.randn(3, 1, 2, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        penalty = gradient_penalty(critic, real, fake, torch.rand(3, 1))
    weight = critic[1].weight
    expected = (weight.norm() - 1).square()
    torch.testing.assert_close(penalty, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, weight)[0] for value in (penalty, expected)))


def test_a_penalty_is_of_points_between_the_samples():
    class Square(nn.Module):
        def forward(self, x):
            return x.square().sum(dim=1, keepdim=True) / 2  # whose gradient is x

    real, fake, share = torch.tensor([[3.0, 4.0]]), torch.tensor([[6.0, 8.0]]), torch.tensor([[0.75]])
    assert gradient_penalty(Square(), real, fake, share).item() == pytest.approx((0.75 * 5 + 0.25 * 10 - 1) ** 2)


def test_losses_are_those_published(data):
    """Each first loss, of networks in the state that they began with, by torch's own functions."""
    module = untrained("vaegan", data)
    image, losses = train(module, data, 1)
    fresh, x, batch = untrained("vaegan", data), module.volumes(image), {"image": image, "seed": torch.arange(4)}
    mean, log_variance = fresh.nets["encoder"](x)
    code = mean + log_variance.exp().sqrt() * fresh.code(batch, 0)
    judged = [fresh.nets["discriminator"](y) for y in (x, fresh.nets["generator"](code))]
    drawn = fresh.nets["discriminator"](fresh.nets["generator"](fresh.code(batch, 1)))
    expected = -(F.logsigmoid(judged[0]) + F.logsigmoid(-judged[1]) + F.logsigmoid(-drawn)).mean()
    assert losses["train/discriminator"][0] == pytest.approx(float(expected.detach()), rel=1e-4)


def test_gradients_go_to_the_network_whose_turn_it_is(data):
    module = untrained("vaegan", data)
    with module.learning("encoder"):
        module.reconstruct(torch.randn(1, 1, *module.padded_shape(data.grid.shape))).sum().backward()
    assert all(p.grad is None for p in module.nets["generator"].parameters())
    assert all(p.grad is not None for p in module.nets["encoder"].features.parameters())
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("shape", [(7, 8, 10), (12, 5, 9)])
def test_a_volume_comes_back_from_the_middle_of_another(shape):
    x = torch.rand(1, 1, 7, 8, 9)
    there = centred(x, shape, -1.0)
    back = centred(there, x.shape[2:], -1.0)
    assert there.shape[2:] == shape
    kept = back != -1
    assert torch.equal(back[kept], x[kept])
    assert int(kept.sum()) == 7 * min(8, shape[1]) * 9


def test_each_sample_has_a_slab_of_its_own():
    x = torch.arange(2 * 6).view(2, 1, 6, 1, 1)
    assert slabs(x, torch.tensor([0, 4]), 2).flatten().tolist() == [0, 1, 10, 11]


def test_weights_start_a_fit_whose_shape_nobody_gave(trained):
    module = HAGAN(scale=SCALE)
    assert not list(module.parameters())
    start(module, last(trained["hagan"]))
    assert module.weights_hash() == load_checkpoint(last(trained["hagan"]))[0].weights_hash()


def test_a_cohort_too_small_for_a_gan_is_said(cohort, verb, tmp_path):
    with pytest.raises(UserError, match="VAEGAN needs two subjects to train on at least, the cohort has 1"):
        verb("fit", *options("vaegan", cohort, tmp_path / "run", "--data.val", 2, "--data.test", 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverges_is_stopped(value, data):
    module = untrained("vaegan", data)
    assert module.checked(torch.tensor(1.5)) == 1.5
    with pytest.raises(UserError, match=f"the training diverged: its loss is {value} at step 0"):
        module.checked(torch.tensor(value))


def test_a_batch_of_one_is_trained_on(cohort, verb, tmp_path):
    verb("fit", *options("alphawgan", cohort, tmp_path / "run", "--data.batch_size", 1))
    state = torch.load(last(tmp_path / "run"), weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())
