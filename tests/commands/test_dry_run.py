"""`--dry_run` says what the run would do, and writes nothing."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cortexgen.cli import main
from cortexgen.contracts import Brain, Generator
from cortexgen.generation import cohort as generation
from cortexgen.io import Grid


@pytest.fixture
def copy(cohort, tmp_path):
    """A copy of the cohort that a test may spoil."""
    return Path(shutil.copytree(cohort, tmp_path / "copy", ignore=shutil.ignore_patterns("truth")))


@pytest.fixture
def called(capsys, tmp_path):
    """Runs the program; returns exit status, lines of output and the error, and sees that a dry run leaves no trace."""

    def files():
        return {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}

    def call(*args):
        before, status = files(), 0
        try:
            main([str(arg) for arg in args])
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        assert "--dry-run" not in args or files() == before
        errors = [line for line in captured.err.splitlines() if line.startswith("cortexgen: error: ")]
        return status, captured.out.splitlines(), errors

    return call


def truncate(root, subject="sub-0002"):
    path = next(root.glob(f"{subject}/anat/*_T1w.nii.gz"))
    path.write_bytes(path.read_bytes()[:-200])
    return path


def test_register(copy, called, tmp_path):
    out, how = tmp_path / "out", ("--method", "affine", "--affine", "never")
    shutil.copytree(copy / "sub-0001", tmp_path / "first" / "sub-0001")
    assert called("register", copy, out, *how, "--dry-run") == (
        0,
        ["register, dry run: 5 image(s): 5 to do, 0 done before, 0 unusable"],
        [],
    )
    assert called("register", tmp_path / "first", out, *how)[0] == 0
    bad = truncate(copy)
    status, lines, errors = called("register", copy, out, *how, "--dry-run")
    assert status == 1 and lines[0] == "register, dry run: 5 image(s): 3 to do, 1 done before, 1 unusable"
    assert lines[1].startswith(f"  sub-0002: {bad}: ") and "cannot be read to its end" in lines[1]
    assert len(errors) == 1 and "1 of 5 image(s) can't be used; sub-0002" in errors[0]
    status, _, errors = called("register", copy, out, "--method", "affine", "--affine", "always", "--dry-run")
    assert status == 1 and "holds another run" in errors[0]


class Plain(Generator):
    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def draw(self, index: int) -> Brain:
        return Brain(index, torch.rand(1, 4, 4, 4), Grid((4, 4, 4), np.eye(4)))

    def describe(self):
        return {"Weights": "none", "Template": "none", "Parameters": {"seed": self.seed}}


def test_generate(called, monkeypatch, tmp_path):
    monkeypatch.setattr(generation.registry, "made", lambda kind, name, options, aside: Plain(options["seed"]))
    assert called("generate", tmp_path / "out", "--num-samples", 2)[0] == 0
    line = "generate, dry run: 5 brain(s): 3 to do, 2 done before, 0 unusable"
    assert called("generate", tmp_path / "out", "--num-samples", 5, "--dry-run") == (0, [line], [])
    status, _, errors = called("generate", tmp_path / "out", "--seed", 1, "--dry-run")
    assert status == 1 and "holds another run, with seed 0; this one has 1" in errors[0]
    assert called("generate", tmp_path / "out", "--num-samples", 0, "--dry-run")[0] == 1


def test_evaluate(cohort, copy, called, tmp_path):
    sets = ("evaluate", cohort, copy, tmp_path / "out", "--dry-run")
    how = ("--labels", "none", "--features", "null", "--random_features", "false")
    line = "evaluate, dry run: 10 brain(s): 10 to do, 0 done before, 0 unusable"
    assert called(*sets, *how) == (0, [line], [])
    pairs = ("--registration", "--images", "*_T1w.nii*", "--label_pattern", "*_dseg.nii*")
    assert called(*sets, *pairs)[:2] == (0, ["evaluate, dry run: 5 pair(s): 5 to do, 0 done before, 0 unusable"])
    truncate(copy)
    (tmp_path / "empty").mkdir()
    status, lines, errors = called(*sets[:3], tmp_path / "empty", *sets[3:], *how)
    assert status == 1 and lines[0] == "evaluate, dry run: 11 brain(s): 9 to do, 0 done before, 2 unusable"
    assert "empty: no NIfTI image" in lines[1] and lines[2].startswith("  copy/sub-0002: ") and len(errors) == 1
    status, lines, _ = called(*sets, *pairs)
    assert status == 1 and "4 to do" in lines[0] and lines[1].startswith("  copy/sub-0002: ")


def test_preprocess(called, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for name, spacing in (("a", 2.0), ("b", 8.0), ("c", 2.0)):
        image = nib.Nifti1Image(rng.random((16, 16, 16), dtype=np.float32), np.diag([spacing] * 3 + [1.0]))
        nib.save(image, tmp_path / "raw" / f"sub-{name}_T1w.nii.gz")
    call = ("preprocess", tmp_path / "raw", tmp_path / "out", "--skip", "strip,denoise,bias", "--dry-run")
    status, lines, errors = called(*call)
    assert status == 1 and lines[0] == "preprocess, dry run: 3 scan(s): 2 to do, 0 done before, 1 unusable"
    assert "sub-b" in lines[1] and "its voxels are 8 x 8 x 8 mm" in lines[1] and len(errors) == 1
    (tmp_path / "raw" / "sub-b_T1w.nii.gz").unlink()
    assert called(*call)[0] == 0
