"""Both stages through the command line, from a cohort to new brains."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.io import read_field, read_grid, write_field
from cortexgen.io.bids import read_tsv, sha256

CONF = Path(__file__).parent / "conf"
CONFIGS = [
    "register.yaml",
    "demo/register.yaml",
    "paper/register.yaml",
    "generate.yaml",
    "demo/generate.yaml",
    "paper/generate.yaml",
]


def files_of(root: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of change of every file."""
    paths = (p for p in sorted(root.rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): (sha256(p), p.stat().st_mtime_ns) for p in paths}


def program(*args: object, **options: object) -> subprocess.Popen:
    """The program as a process of its own."""
    command = [sys.executable, "-m", "cortexgen", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


TWELVE_STEPS = ("--trainer.max_steps", 12, "--trainer.max_epochs", -1, "--trainer.limit_val_batches", 0)
TWELVE_STEPS += ("--model.warmup_steps", 0)


def logged(run_folder, name):
    """What each step of a training logged, in their order."""
    with open(next(run_folder.glob("logs/version_0/metrics.csv")), newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("config", [c for c in CONFIGS if "register" in c])
def test_every_config_trains_stage_1(config, cohort, verb, tmp_path):
    """Shown one pair again and again, M brings it together and G takes noise for noise."""
    size = ("--data.crop", "[8, 16, 16]") if config == "paper/register.yaml" else ()
    alone = (
        "--data.test",
        3,
        "--data.augmentation",
        "none",
        "--data.pairs",
        0,
        "--model.symmetric",
        "false",
        "--model.clean",
        0.25,
    )
    where = ("--data.root", cohort, "--trainer.default_root_dir", tmp_path)
    cli = verb("fit", config, *where, *size, *alone, *TWELVE_STEPS, "--model.lr", 2e-3)
    assert cli.trainer.global_step == 12
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "config.yaml").is_file()
    similarity = [-x for x in logged(tmp_path, "train/similarity")]
    assert 0 < similarity[0] < max(similarity[-3:]) - 0.01 < 1  # the first is that of doing nothing
    noise = [x for x in logged(tmp_path, "train/diffusion") if x]
    assert 0 < noise[-1] < 0.95 * noise[0] < 2


@pytest.mark.parametrize("config", [c for c in CONFIGS if "generate" in c])
def test_every_config_trains_stage_2(config, registered, verb, tmp_path):
    """The network starts by saying nothing; where it predicts the noise itself, silence costs 1."""
    where = ("--data.root", registered[1], "--trainer.default_root_dir", tmp_path)
    cli = verb("fit", config, *where, *TWELVE_STEPS, "--model.lr", 1e-2)
    assert cli.trainer.global_step == 12
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "config.yaml").is_file()
    losses = logged(tmp_path, "train/loss")
    assert len(losses) == 12 and all(0 < x < 10 for x in losses)
    if cli.model.h.prediction == "eps":
        assert losses[0] == pytest.approx(1, abs=0.1) and sum(losses[-3:]) / 3 < 0.85
    last = cli.model.net.outlet[-1]
    assert all(float(p.detach().abs().mean()) > 1e-3 for p in (last.weight, last.bias))


def test_registration_files(cohort, registered):
    fields = registered[1]
    rows = read_tsv(fields / "registration.tsv")
    assert [r["participant_id"] for r in rows] == [f"sub-{k:04d}" for k in range(1, 6)]
    assert {r["split"] for r in rows} == {"train", "val", "test"} and all(r["status"] == "ok" for r in rows)
    assert all(r["folded_voxels"] == 0 and 0 < r["dice"] <= 1 for r in rows)
    image = next((cohort / "sub-0001" / "anat").glob("*_T1w.nii.gz"))
    anat = fields / "sub-0001" / "anat"
    names = {p.name for p in anat.glob("*.nii.gz")}
    space = "space-MNI152NLin2009aSym"
    assert names == {
        "sub-0001_from-MNI152NLin2009aSym_to-T1w_mode-image_xfm.nii.gz",
        "sub-0001_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.nii.gz",
        "sub-0001_desc-warped_T1w.nii.gz",
        "sub-0001_desc-warped_dseg.nii.gz",
        f"sub-0001_{space}_desc-logjac_map.nii.gz",
        f"sub-0001_{space}_desc-velocity_field.nii.gz",
    }
    assert all((anat / name.replace(".nii.gz", ".json")).is_file() for name in names)
    assert read_grid(anat / "sub-0001_desc-warped_T1w.nii.gz").matches(read_grid(image))
    made = json.loads((fields / "dataset_description.json").read_text())["GeneratedBy"][0]
    assert made["Name"] == "cortexgen" and len(made["Weights"]) == 64


def test_validate_and_test_measure_a_checkpoint(cohort, registered, verb, capsys):
    common = ("--data.root", cohort, "--trainer.default_root_dir", registered[0], "--ckpt_path", "best")
    for name in ("validate", "test"):
        cli = verb(name, "register.yaml", *common)
        measured = cli.trainer.callback_metrics
        stage = {"validate": "val"}.get(name, name)
        assert 0 < float(measured[f"{stage}/dice"]) < 1
        assert float(measured[f"{stage}/folded"]) == 0


def test_generated_cohort(registered, trained_generator, verb, tmp_path):
    common = ("generate.yaml", "--data.root", registered[1], "--trainer.default_root_dir", trained_generator)
    out = tmp_path / "brains"
    verb("predict", *common, "--ckpt_path", "last", "--output", out, "--model.conditions", "{age: 50, sex: F}")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["samples"] == 2 and manifest["options"]["conditions"] == {"age": 50, "sex": "F"}
    for record in manifest["records"]:
        anat = out / record["participant_id"] / "anat"
        assert record["sha256"] == {name: sha256(anat / name) for name in record["sha256"]}
        assert len(record["sha256"]) == 3
    assert read_tsv(out / "participants.tsv")[1] == {"participant_id": "sub-synth0002", "age": 50.0, "sex": "F"}


def test_a_cohort_does_not_depend_on_processes_or_interruptions(registered, trained_generator, verb, tmp_path):
    """One process; two with gloo; one that made the first sample and was started again."""
    common = (
        "generate.yaml",
        "--data.root",
        registered[1],
        "--trainer.default_root_dir",
        trained_generator,
        "--ckpt_path",
        "last",
        "--model.sample_seed",
        7,
    )
    one, two, later = tmp_path / "one", tmp_path / "two", tmp_path / "later"
    verb("predict", *common, "--output", one, "--model.num_samples", 3)
    verb("predict", *common, "--output", later, "--model.num_samples", 1)
    before = files_of(later / "sub-synth0001")
    verb("predict", *common, "--output", later, "--model.num_samples", 3)
    assert files_of(later / "sub-synth0001") == before
    args = ("predict", "--config", "generate.yaml", "--config", CONF / "generate.yaml", *common[1:])
    ddp = (
        "--trainer.accelerator",
        "cpu",
        "--trainer.devices",
        2,
        "--trainer.strategy",
        "ddp",
        "--model.num_samples",
        3,
    )
    process = program(*args, *ddp, "--output", two, env=os.environ | {"OMP_NUM_THREADS": "1"})
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    contents = [
        {k: v[0] for k, v in files_of(root).items() if k != "dataset_description.json"} for root in (one, two, later)
    ]
    assert contents[0] == contents[1] == contents[2]
    assert sum(name.endswith("_dseg.nii.gz") for name in contents[0]) == 3
    different = read_field(next((one / "sub-synth0001" / "anat").glob("*_xfm.nii.gz")))[0]
    assert (different - read_field(next((one / "sub-synth0002" / "anat").glob("*_xfm.nii.gz")))[0]).abs().max() > 0


def test_two_processes_register_every_subject_once(cohort, registered, tmp_path):
    fields = tmp_path / "fields"
    process = program(
        "predict",
        "--config",
        "register.yaml",
        "--config",
        CONF / "register.yaml",
        "--data.root",
        cohort,
        "--trainer.default_root_dir",
        registered[0],
        "--ckpt_path",
        "last",
        "--output",
        fields,
        "--trainer.accelerator",
        "cpu",
        "--trainer.devices",
        2,
        "--trainer.strategy",
        "ddp",
    )
    text = process.communicate(timeout=300)[0]
    assert process.returncode == 0, text
    rows, alone = read_tsv(fields / "registration.tsv"), read_tsv(registered[1] / "registration.tsv")
    assert [r["participant_id"] for r in rows] == [r["participant_id"] for r in alone]
    assert [r["dice"] for r in rows] == pytest.approx([r["dice"] for r in alone], abs=1e-4)


def test_a_finished_registration_is_not_redone(cohort, registered, verb):
    before = files_of(registered[1])
    where = ("--data.root", cohort, "--trainer.default_root_dir", registered[0])
    verb("predict", "register.yaml", *where, "--ckpt_path", "last", "--output", registered[1])
    changed = {k for k, v in files_of(registered[1]).items() if v != before.get(k)}
    assert changed <= {"registration.tsv", "participants.tsv"}


def test_killed_predict_goes_on(cohort, registered, tmp_path):
    """SIGKILL after the first subject; the second run finishes and rewrites nothing."""
    args = (
        "predict",
        "--config",
        "register.yaml",
        "--config",
        CONF / "register.yaml",
        "--data.root",
        cohort,
        "--trainer.default_root_dir",
        registered[0],
        "--ckpt_path",
        "last",
        "--output",
        tmp_path / "fields",
        "--model.refine",
        200,
    )
    process = program(*args)
    rows = tmp_path / "fields"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(rows.glob("sub-*/anat/*_desc-registration_metrics.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p.parents[1].name for p in rows.glob("sub-*/anat/*_desc-registration_metrics.json")}
    assert done and len(done) < 5
    before = {name: files_of(rows / name) for name in done}
    second = program(*args)
    text = second.communicate(timeout=300)[0]
    assert second.returncode == 0, text
    assert {name: files_of(rows / name) for name in done} == before
    assert len(read_tsv(rows / "registration.tsv")) == 5
    assert not list(rows.rglob(".tmp-*"))


def test_killed_fit_goes_on_at_its_global_step(cohort, tmp_path):
    """SIGKILL in the middle of fit; the same command with --ckpt_path last continues from the last checkpoint."""
    run = tmp_path / "run"
    args = (
        "fit",
        "--config",
        "register.yaml",
        "--config",
        CONF / "register.yaml",
        "--data.root",
        cohort,
        "--trainer.default_root_dir",
        run,
        "--trainer.max_epochs",
        -1,
    )
    process = program(*args, "--trainer.max_steps", 100000)
    last = run / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not last.is_file():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = torch.load(last, weights_only=True)["global_step"]
    assert step > 0
    second = program(*args, "--trainer.max_steps", step + 2, "--ckpt_path", "last")
    text = second.communicate(timeout=300)[0]
    assert second.returncode == 0, text
    assert torch.load(last, weights_only=True)["global_step"] == step + 2
    with open(run / "logs" / "version_1" / "metrics.csv", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(steps) == 2 and steps[0] >= step and steps[1] == steps[0] + 1


def test_fit_does_not_start_over_or_resume_nothing(cohort, registered, verb, tmp_path):
    with pytest.raises(UserError, match="--ckpt_path last to go on"):
        verb("fit", "register.yaml", "--data.root", cohort, "--trainer.default_root_dir", registered[0])
    with pytest.raises(UserError, match="nothing to go on from"):
        verb(
            "fit", "register.yaml", "--data.root", cohort, "--trainer.default_root_dir", tmp_path, "--ckpt_path", "last"
        )


def test_the_checkpoint_wins_over_the_data(registered, trained_generator, verb, tmp_path):
    """Fields of twice the size and another covariate list change nothing; fields on another grid are refused."""
    weights = ("--trainer.default_root_dir", trained_generator, "--ckpt_path", "last", "--model.num_samples", 1)
    verb("predict", "generate.yaml", "--data.root", registered[1], *weights, "--output", tmp_path / "one")
    other = shutil.copytree(registered[1], tmp_path / "other")
    for path in other.glob("sub-*/anat/*_desc-velocity_field.nii.gz"):
        field, grid = read_field(path)
        write_field(path, 2 * field, grid)
    changed = ("--data.root", other, "--model.covariates", "[]")
    verb("predict", "generate.yaml", *changed, *weights, "--output", tmp_path / "two")
    one, two = (files_of(tmp_path / name / "sub-synth0001") for name in ("one", "two"))
    assert {k: v[0] for k, v in one.items()} == {k: v[0] for k, v in two.items()}
    for path in other.glob("sub-*/anat/*_desc-velocity_field.nii.gz"):
        field, grid = read_field(path)
        write_field(
            path, field[..., 1:-1], grid.box((0, 0, 1), (grid.shape[0] - 1, grid.shape[1] - 1, grid.shape[2] - 2))
        )
    with pytest.raises(UserError, match="the checkpoint's grid is"):
        verb("predict", "generate.yaml", "--data.root", other, *weights, "--output", tmp_path / "three")


def test_samples_without_the_training_fields(registered, trained_generator, verb, tmp_path):
    """A checkpoint is enough to generate."""
    where = ("--data.root", tmp_path / "gone", "--trainer.default_root_dir", trained_generator)
    verb(
        "predict",
        "generate.yaml",
        *where,
        "--ckpt_path",
        "last",
        "--model.num_samples",
        1,
        "--output",
        tmp_path / "out",
    )
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["samples"] == 1


def test_offline_weights_and_biases_holds_pictures(cohort, verb, tmp_path):
    where = ("--data.root", cohort, "--trainer.default_root_dir", tmp_path)
    verb("fit", "register.yaml", *where, "--wandb", "offline", "--trainer.num_sanity_val_steps", 0)
    pictures = [p.read_bytes() for p in tmp_path.glob("wandb/offline-run-*/files/media/images/example*.png")]
    assert len(pictures) == 1 and pictures[0].startswith(b"\x89PNG")
    assert [p.read_bytes() for p in (tmp_path / "pictures").glob("*.png")] == pictures
    assert list(tmp_path.glob("logs/version_0/metrics.csv"))
