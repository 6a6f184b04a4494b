"""Another package's step and study are used through the command line like our own; cortexgen isn't edited for them."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cortexgen import registry
from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.io.bids import read_tsv
from cortexgen.preprocess import Pipeline, Resample
from cortexgen.simulation.cohort import simulate_cohort
from cortexgen.studies import find_study

PLUGINS = Path(__file__).parent / "plugins"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The package brainlab as pip installs it: its wheel, unpacked into a folder."""
    folder = tmp_path_factory.mktemp("brainlab")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PLUGINS, check=True, capture_output=True, timeout=120)
    zipfile.ZipFile(next(folder.glob("*.whl"))).extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def installed(site, monkeypatch):
    """The package in this process."""
    monkeypatch.syspath_prepend(site)


@pytest.fixture(scope="session")
def program(site):
    """`program(call, ...)` runs calls of cortexgen one after another where the package is installed; what they said."""
    code = "import sys; from cortexgen.cli import main\nfor call in {}:\n try: main(call)\n except SystemExit: pass"

    def run(*calls):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-c", code.format([[str(word) for word in call] for call in calls])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three scans laid out as the package's study has them."""
    brains, root = tmp_path_factory.mktemp("brains"), tmp_path_factory.mktemp("studies") / "oasis"
    simulate_cohort(brains, subjects=3, seed=4, spacing=4.0, progress=False)
    for scan, name in zip(read_cohort(brains), ("OAS1_0001_MR1", "OAS1_0001_MR2", "OAS1_0002_MR1"), strict=True):
        (root / name).mkdir(parents=True)
        shutil.copy(scan.image, root / name / "T1.nii.gz")
    return root


def test_its_study_is_recognised_and_read(installed, study):
    names = [scan.name for scan in find_study(study).scans]
    assert names == ["sub-OAS10001_ses-MR1", "sub-OAS10001_ses-MR2", "sub-OAS10002_ses-MR1"]
    assert len(find_study(study, "oasis", visits="baseline").scans) == 2
    (study.parent / "empty").mkdir()
    with pytest.raises(UserError, match=r"looked for .*NCANDA.*, OAS1_0001_MR1 \(OASIS-1\), and \*.nii"):
        find_study(study.parent / "empty")


def test_its_step_has_its_place_and_its_needs(installed):
    gamma, normalize = (registry.find("steps", name)() for name in ("Gamma", "Normalize"))
    for steps, words in (((gamma, normalize), "gamma comes before normalize"), ((gamma,), "gamma needs normalize")):
        with pytest.raises(UserError, match=words):
            Pipeline([Resample(), *steps], load_template())


def test_the_command_line_takes_both_and_names_them(program, study, tmp_path):
    def steps(*more):
        listed = ["{class_path: Resample, init_args: {spacing: 8}}", "{class_path: Normalize}", *more]
        return f"--steps=[{', '.join(listed)}]"

    said = program(
        ("preprocess", study, tmp_path / "plain", steps()),
        ("preprocess", study, tmp_path / "dark", steps("{class_path: Gamma, init_args: {power: 3}}"), "--study=oasis"),
        ("preprocess", study, tmp_path / "bad", "--study=ukb"),
        ("preprocess", "--help"),
    )
    assert said.count("3 scan(s) ok, 0 to look at, 0 failed") == 2, said
    assert len(read_tsv(tmp_path / "dark" / "preprocess.tsv")) == 3
    for plain, dark in zip(*(sorted((tmp_path / n).rglob("*_T1w.nii.gz")) for n in ("plain", "dark")), strict=True):
        before, after = (np.asarray(nib.load(path).dataobj) for path in (plain, dark))
        np.testing.assert_allclose(after, before**3, atol=0.02)  # files hold 8 bits
        assert before.max() == 1
    assert "--study {auto,bids,adni,ncanda,folder,oasis}" in said and "ukb" in said
