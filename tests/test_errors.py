"""A user's mistakes: one clear line and a non-zero exit, and the good subjects are still processed."""

import errno
import gzip
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cortexgen.cli import main
from cortexgen.io.bids import read_tsv

CONF = Path(__file__).parent / "conf"


@pytest.fixture
def copy(cohort, tmp_path):
    """A copy of the cohort that a test may spoil."""
    return Path(shutil.copytree(cohort, tmp_path / "copy", ignore=shutil.ignore_patterns("truth")))


@pytest.fixture
def fails(capsys):
    """Run the program, expect an exit status and one line on stderr; returns the line."""

    def call(*args: object, status: int = 1) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in args])
        assert stop.value.code == status
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cortexgen: error: ")]
        assert len(lines) == 1
        return lines[0]

    return call


def stage_1(verb, root, run, *extra):
    return (verb, "--config", "register.yaml", "--config", CONF / "register.yaml", "--data.root", root,
            "--trainer.default_root_dir", run, *extra)  # fmt: skip


def stage_2(verb, root, run, *extra):
    return (verb, "--config", "generate.yaml", "--config", CONF / "generate.yaml", "--data.root", root,
            "--trainer.default_root_dir", run, *extra)  # fmt: skip


def image_of(root: Path, subject: str) -> Path:
    return next((root / subject / "anat").glob("*_T1w.nii.gz"))


def rewrite(path: Path, change) -> None:
    image = nib.load(path)
    array, affine = change(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    nib.save(nib.Nifti1Image(array, affine), path)


def test_unknown_command_names_the_known_ones(fails):
    known = (
        "preprocess, register, generate, evaluate, benchmark, bids, demo, export, simulate, weights, info, completion"
    )
    assert f"there are {known}, fit" in fails("generat")


def test_missing_config_names_the_presets(fails):
    assert "register.yaml" in fails("fit", "--config", "nowhere.yaml")


def test_unknown_option_in_a_yaml(fails, tmp_path, cohort):
    bad = tmp_path / "bad.yaml"
    bad.write_text("model:\n  class_path: DiffuseMorphModule\n  init_args: {smothness_weight: 1}\n")
    assert "smothness_weight" in fails("fit", "--config", "register.yaml", "--config", bad, "--data.root", cohort)


def test_wrong_type_in_an_option(fails, cohort):
    assert "lr" in fails("fit", "--config", "register.yaml", "--data.root", cohort, "--model.lr", "fast")


def test_values_that_make_no_sense(fails, cohort, tmp_path):
    assert "field_downsample must be" in fails(*stage_1("fit", cohort, tmp_path / "run", "--model.field_downsample", 3))
    assert "spacing: expected" in fails(*stage_1("fit", cohort, tmp_path / "run", "--data.spacing", -1))
    assert "crop: expected three" in fails(*stage_1("fit", cohort, tmp_path / "run", "--data.crop", "[8, 8]"))


def test_missing_and_empty_folder(fails, tmp_path):
    assert "no such folder" in fails(*stage_1("fit", tmp_path / "nowhere", tmp_path / "run"))
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: no image" in fails(*stage_1("fit", tmp_path / "empty", tmp_path / "run"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def truncate_plain(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-2000]))


def without_affine(path):
    image = nib.load(path)
    header = image.header.copy()
    header["srow_x"], header["sform_code"], header["qform_code"] = 0, 1, 0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), path)


DAMAGES = {
    "truncated": (truncate, "cannot be read to its end"),
    "shorter than its header says": (truncate_plain, "cannot be read to its end"),
    "4D": (lambda p: rewrite(p, lambda a, m: (np.stack([a, a], -1), m)), "expected a 3D volume"),
    "NaN": (lambda p: rewrite(p, lambda a, m: (np.where(a > 0.9, np.nan, a), m)), "NaN"),
    "constant": (lambda p: rewrite(p, lambda a, m: (np.ones_like(a), m)), "an image has contrast"),
    "other grid": (lambda p: rewrite(p, lambda a, m: (a[1:], m)), "the cohort's is"),
    "no affine": (without_affine, "valid affine"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_bad_image_in_a_cohort(damage, copy, registered, fails, tmp_path):
    """predict reports it with its reason, does the others, and exits with 1."""
    spoil, reason = DAMAGES[damage]
    path = image_of(copy, "sub-0002")
    spoil(path)
    args = ("--ckpt_path", registered[0] / "checkpoints" / "last.ckpt", "--output", tmp_path / "out")
    line = fails(*stage_1("predict", copy, tmp_path / "run", *args))
    assert "sub-0002" in line and path.name in line and reason in line
    rows = {r["participant_id"]: r["status"] for r in read_tsv(tmp_path / "out" / "registration.tsv")}
    assert rows.pop("sub-0002").startswith("failed: ") and set(rows.values()) == {"ok"} and len(rows) == 4


def test_training_goes_on_without_a_bad_image(copy, fails, tmp_path):
    truncate(image_of(copy, "sub-0002"))
    line = fails(
        *stage_1("fit", copy, tmp_path / "run", "--data.val_subjects", "['0001']", "--data.test_subjects", "['0003']")
    )
    assert "1 subject(s) left out, the others are done; sub-0002" in line
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_every_image_bad(copy, fails, tmp_path):
    for path in copy.glob("sub-*/anat/*_T1w.nii.gz"):
        path.write_bytes(b"not an image")
    assert "none of its 5 images can be read" in fails(*stage_1("fit", copy, tmp_path / "run"))


def test_template_on_another_grid_than_its_labels(cohort, fails, tmp_path):
    labels = next((cohort / "sub-0001" / "anat").glob("*_dseg.nii.gz"))
    moved = tmp_path / "dseg.nii.gz"
    shutil.copy(labels, moved)
    rewrite(moved, lambda a, m: (a[1:].astype(np.uint8), m))
    template = ("--data.template", image_of(cohort, "sub-0001"), "--data.template_labels", moved)
    assert "different grids" in fails(*stage_1("fit", cohort, tmp_path / "run", *template))


def test_covariates_that_participants_lack(registered, fails, tmp_path):
    line = fails(*stage_2("fit", registered[1], tmp_path / "run", "--model.covariates", "[age, iq]"))
    assert "'iq'" in line and "age, brain_volume_ml, sex" in line


def test_checkpoint_of_another_grid(cohort, registered, fails, tmp_path):
    weights = registered[0] / "checkpoints" / "last.ckpt"
    args = ("--ckpt_path", weights, "--output", tmp_path / "out", "--data.spacing", 16)
    line = fails(*stage_1("predict", cohort, tmp_path / "run", *args))
    assert "the checkpoint's grid is" in line and "the data's is" in line and "16 x 16 x 16 mm" in line
    assert not (tmp_path / "out").exists()


def test_checkpoint_of_another_template(cohort, registered, fails, tmp_path):
    anat = cohort / "sub-0001" / "anat"
    template = (
        "--data.template",
        image_of(cohort, "sub-0001"),
        "--data.template_labels",
        next(anat.glob("*_dseg.nii.gz")),
    )
    weights = ("--ckpt_path", registered[0] / "checkpoints" / "last.ckpt", "--output", tmp_path / "out")
    # the subject's own brain box differs, so give both the whole grid
    line = fails(*stage_1("predict", cohort, tmp_path / "run", *template, *weights))
    assert "the checkpoint's template is" in line and "MNI152NLin2009aSym" in line


def test_no_weights_and_unreadable_weights(cohort, fails, tmp_path):
    out = ("--output", tmp_path / "out")
    assert "--ckpt_path" in fails(*stage_1("predict", cohort, tmp_path / "run", *out))
    assert "no such file" in fails(
        *stage_1("predict", cohort, tmp_path / "run", *out, "--ckpt_path", tmp_path / "no.ckpt")
    )
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(b"weights")
    assert "not a checkpoint" in fails(*stage_1("predict", cohort, tmp_path / "run", *out, "--ckpt_path", bad))
    torch.save({"state_dict": {}}, bad)
    assert "not written by cortexgen" in fails(*stage_1("predict", cohort, tmp_path / "run", *out, "--ckpt_path", bad))


def test_predict_needs_an_output_folder(cohort, registered, fails, tmp_path):
    weights = registered[0] / "checkpoints" / "last.ckpt"
    assert "--output OUT" in fails(*stage_1("predict", cohort, tmp_path / "run", "--ckpt_path", weights))


def test_output_that_cannot_be_made_or_is_not_empty(cohort, registered, fails, tmp_path):
    weights = ("--ckpt_path", registered[0] / "checkpoints" / "last.ckpt")
    (tmp_path / "file").write_text("")
    assert "cannot write there" in fails(
        *stage_1("predict", cohort, tmp_path / "run", *weights, "--output", tmp_path / "file" / "out")
    )
    assert "cannot write" in fails(*stage_1("fit", cohort, "/proc/cortexgen"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").write_text("")
    assert "other files" in fails(
        *stage_1("predict", cohort, tmp_path / "run", *weights, "--output", tmp_path / "full")
    )


def test_full_disk(cohort, registered, fails, tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cortexgen.io.compressed.compress", no_space)
    weights = ("--ckpt_path", registered[0] / "checkpoints" / "last.ckpt", "--output", tmp_path / "out")
    assert "No space left on device" in fails(*stage_1("predict", cohort, tmp_path / "run", *weights))
    assert not list((tmp_path / "out").rglob(".tmp-*")) and not list((tmp_path / "out").rglob("*_metrics.json"))


def test_output_of_another_run(registered, trained_generator, fails, verb, tmp_path):
    common = ("--ckpt_path", trained_generator / "checkpoints" / "last.ckpt", "--output", tmp_path / "out")
    where = ("--data.root", registered[1], "--trainer.default_root_dir", trained_generator)
    verb("predict", "generate.yaml", *where, *common, "--model.num_samples", 1)
    line = fails(*stage_2("predict", registered[1], trained_generator, *common, "--model.sample_seed", 8))
    assert "sample_seed 0" in line and "8" in line


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--model.num_samples", 0), "num_samples"),
        (("--model.steps", 0), "steps: expected 1 or more"),
        (("--model.conditions", "{height: 2}"), "'height' is not a covariate"),
        (("--model.conditions", "{sex: X}"), "none of F, M"),
        (("--model.conditions", "{age: old}"), "expected a number"),
    ],
)
def test_generation_options(option, reason, registered, trained_generator, fails, tmp_path):
    weights = ("--ckpt_path", trained_generator / "checkpoints" / "last.ckpt", "--output", tmp_path / "out")
    assert reason in fails(*stage_2("predict", registered[1], trained_generator, *weights, *option))


def test_condition_outside_the_cohort_warns(registered, trained_generator, verb, tmp_path):
    common = ("--ckpt_path", trained_generator / "checkpoints" / "last.ckpt", "--output", tmp_path / "out")
    with pytest.warns(UserWarning, match="age 90 lies outside the cohort's range"):
        verb("predict", "generate.yaml", "--data.root", registered[1], *common, "--model.num_samples", 1,
             "--model.conditions", "{age: 90}")  # fmt: skip


def test_weights_of_the_other_stage(registered, trained_generator, cohort, fails, tmp_path):
    stage_1s, stage_2s = (folder / "checkpoints" / "last.ckpt" for folder in (registered[0], trained_generator))
    out = ("--output", tmp_path / "out")
    line = fails("register", image_of(cohort, "sub-0001"), tmp_path / "r", "--checkpoint", stage_2s)
    assert "weights of stage 2; register needs stage 1's" in line
    assert "generate needs stage 2's" in fails("generate", tmp_path / "g", "--checkpoint", stage_1s)
    line = fails(*stage_1("predict", cohort, tmp_path / "run", *out, "--ckpt_path", stage_2s))
    assert "FieldDiffusionModule" in line
    assert not any((tmp_path / name).exists() for name in ("r", "g", "out"))


HOPELESS = {
    "zero": ("0", "above zero"),
    "negative": ("-1", "above zero"),
    "not a number": (".nan", "above zero"),
    "endless": (".inf", "above zero"),
    "tiny": ("0.02", "GB of memory, this machine has"),
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_voxels_of_no_size_or_too_small_for_the_memory(kind, cohort, fails, tmp_path):
    value, reason = HOPELESS[kind]
    out = tmp_path / "out"
    calls = [
        ("simulate", out, "--subjects", 1, f"--spacing={value}"),
        ("generate", out, "--num-samples", 1, f"--resolution={value}"),
        ("preprocess", cohort, out, f"--spacing={value}"),
        ("evaluate", cohort, cohort, out, f"--spacing={value}", "--labels", "none"),
        stage_1("fit", cohort, out, f"--data.spacing={value}"),
    ]
    for call in calls:
        line = fails(*call)
        assert "spacing" in line and (reason in line or "above 0" in line), call
        assert not out.exists(), call


@pytest.mark.parametrize(
    "option", ["--guidance=inf", "--correction=nan", "--age=nan", "--devices=0", "--num-samples=-1"]
)
def test_numbers_of_generation_that_are_none(option, fails, tmp_path):
    assert "expected" in fails("generate", tmp_path / "out", option).lower()
    assert not (tmp_path / "out").exists()


def test_a_training_that_fails_leaves_no_folder(cohort, fails, tmp_path):
    run = tmp_path / "runs" / "mine"
    fails(*stage_1("fit", cohort, run, "--data.val", 99))
    assert not run.parent.exists()
    assert "devices" in fails(*stage_1("fit", cohort, run, "--trainer.devices", 0))
    for seed in (-1, 2**40):
        said = fails(*stage_1("fit", cohort, run, "--seed_everything", seed))
        assert "--seed_everything: expected 0 to 4294967295" in said
    assert not run.parent.exists()
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")
    fails(*stage_1("fit", cohort, run, "--data.val", 99))
    assert (run / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("number, text", [(errno.EFBIG, "File too large"), (errno.ENOSPC, "No space left"),
                                          (errno.ENAMETOOLONG, "name too long")])  # fmt: skip
def test_what_the_system_refuses_is_said_in_a_line(number, text, fails, monkeypatch, tmp_path):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("cortexgen.commands.simulate.simulate_cohort", refuse)
    line = fails("simulate", tmp_path / "out")
    assert "some/file" in line and text in line


def test_a_name_that_is_too_long(fails, tmp_path):
    assert "name too long" in fails("register", tmp_path / ("x" * 300), tmp_path / "out")
    assert "name too long" in fails("simulate", tmp_path / ("x" * 300))


def test_images_given_as_labels(cohort, fails, tmp_path):
    image = tmp_path / "t1.nii.gz"
    shutil.copy(image_of(cohort, "sub-0001"), image)
    rewrite(image, lambda a, m: ((a * 4000).astype(np.int16), m))
    for call in (
        ("generate", tmp_path / "out", "--labels", image),
        ("register", image, tmp_path / "out", "--moving", image, "--moving_labels", image),
    ):
        assert f"{image}: " in (line := fails(*call)) and "this is an image, expected a label map" in line
