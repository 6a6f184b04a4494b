"""Training on two processes is training on one: every preset, sample by sample and gradient by gradient."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parent
STEPS = 3
CONFIGS = ["register.yaml", "paper/register.yaml", "generate.yaml", "paper/generate.yaml", "appearance.yaml"]


def start(folder, name, fits, **environment):
    """One process with the given trainings."""
    arguments = folder / f"{name}.json"
    arguments.write_text(json.dumps(fits))
    command = [sys.executable, str(TESTS / "one_rank.py"), str(folder / f"{name}.pt"), str(arguments)]
    environment = {key: str(value) for key, value in environment.items()}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, **streams)


@pytest.fixture(scope="module")
def records(cohort, registered, tmp_path_factory):
    """What one process, and each of two, did with every preset: by config a dictionary of "one", "first", "second"."""
    folder = tmp_path_factory.mktemp("devices")

    def fits(devices):
        out = []
        for config in CONFIGS:
            stage = config.split("/")[-1].removesuffix(".yaml")
            # The paper's presets divide their accumulated batches among the devices by themselves.
            sizes = (1, 2) if "paper" in config else (2 // devices, 1)
            options = {
                "--data.root": registered[1] if stage == "generate" else cohort,
                "--data.batch_size": sizes[0],
                "--model.lr": 0.0,
                "--trainer.default_root_dir": folder / f"{config.replace('/', '-')}-{devices}",
                "--trainer.accumulate_grad_batches": sizes[1],
                "--trainer.limit_train_batches": 1.0,
                "--trainer.max_epochs": -1,
                "--trainer.max_steps": STEPS,
                "--trainer.accelerator": "cpu",
                "--trainer.precision": "32-true",
                "--trainer.devices": devices,
            }
            if stage == "generate":
                options["--model.covariates"] = "[age, sex]"
            if stage == "appearance":
                options["--data.registered"] = registered[1]
            if config == "paper/register.yaml":
                options["--data.crop"] = "[8, 16, 16]"
            words = [str(word) for option in options.items() for word in option]
            out.append(["fit", "--config", config, "--config", str(TESTS / "conf" / f"{stage}.yaml"), *words])
        return out

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"TORCHELASTIC_RUN_ID": "none", "GROUP_RANK": 0}
    processes = {"one": start(folder, "one", fits(1))}
    for rank, name in enumerate(("first", "second")):
        processes[name] = start(folder, name, fits(2), RANK=rank, LOCAL_RANK=rank, **shared)
    texts = {name: process.communicate(timeout=300)[0] for name, process in processes.items()}
    assert all(process.returncode == 0 for process in processes.values()), texts
    found = {name: torch.load(folder / f"{name}.pt") for name in processes}
    return {config: {name: found[name][k] for name in found} for k, config in enumerate(CONFIGS)} | {"texts": texts}


@pytest.mark.parametrize("config", CONFIGS)
def test_two_processes_with_batches_of_one_are_one_with_batches_of_two(config, records):
    one, first, second = (records[config][name] for name in ("one", "first", "second"))
    assert len(one["gradients"]) == len(first["gradients"]) == STEPS
    for alone, together, other in zip(one["gradients"], first["gradients"], second["gradients"], strict=True):
        rounding = 1e-5 * sum(gradient.square().sum() for gradient in alone.values()).sqrt()
        for name, expected in alone.items():
            assert torch.equal(together[name], other[name])  # what both of them step with
            assert (together[name] - expected).norm() < 1e-3 * expected.norm() + rounding, name


@pytest.mark.parametrize("config", CONFIGS)
def test_processes_draw_noise_of_their_own_for_samples_of_their_own(config, records):
    one, first, second = (records[config][name] for name in ("one", "first", "second"))
    assert len(set(one["noise"])) == len(one["noise"])
    assert sorted(first["noise"] + second["noise"]) == sorted(one["noise"])
    assert first["names"] != second["names"]


def test_a_step_takes_as_many_samples_on_two_devices_or_it_is_said(records):
    text = " ".join(records["texts"]["first"].split())
    assert "accumulate_grad_batches 2 becomes 1, so that a step takes 2 samples as on one device" in text
    assert "2 devices: a step takes 2 samples instead of 1" in text
