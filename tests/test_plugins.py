"""Another package's step, study, metric, generator, registration and labeller are used like our own.

cortexgen isn't edited for them: `tests/plugins` is a package whose pyproject.toml names them as entry points.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cortexgen import registry
from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.io import write_volume
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
def brains(tmp_path_factory):
    """Three simulated subjects at 4 mm."""
    root = tmp_path_factory.mktemp("brains")
    simulate_cohort(root, subjects=3, seed=4, spacing=4.0, progress=False)
    return root


@pytest.fixture(scope="module")
def study(brains, tmp_path_factory):
    """Their images laid out as the package's study has them."""
    root = tmp_path_factory.mktemp("studies") / "oasis"
    for scan, name in zip(read_cohort(brains), ("OAS1_0001_MR1", "OAS1_0001_MR2", "OAS1_0002_MR1"), strict=True):
        (root / name).mkdir(parents=True)
        shutil.copy(scan.image, root / name / "T1.nii.gz")
    return root


def values(path):
    return np.asarray(nib.load(path).dataobj)


def test_how_to_add_one_is_told_by_its_lines():
    told = (PLUGINS.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    shown = [line[1:] for line in told if line.startswith("+")]
    lines = {
        line
        for path in PLUGINS.rglob("*.*")
        if path.suffix in (".py", ".toml")
        for line in path.read_text().splitlines()
    }
    assert len(shown) > 20 and set(shown) <= lines


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


def test_the_command_line_takes_its_step_and_its_study_and_names_them(program, study, tmp_path):
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
        before, after = values(plain), values(dark)
        np.testing.assert_allclose(after, before**3, atol=0.02)  # files hold 8 bits
        assert before.max() == pytest.approx(1)
    assert "--study {auto,bids,adni,ncanda,folder,oasis}" in said and "ukb" in said


def test_its_generator_draws_and_its_metric_and_labeller_judge(program, brains, tmp_path):
    drawn, out = tmp_path / "drawn", tmp_path / "evaluated"
    options = ("--labels", "halves", "--protocol", "standard", "--resamples", "20")
    said = program(
        ("generate", drawn, "--generator", "dimmed", "--num-samples", 3, "--resolution", 4),
        ("evaluate", brains, drawn, out, *options),
        ("evaluate", "--help"),
        ("generate", tmp_path / "bad", "--generator", "dimmed", "--guidance", 2),
    )
    assert "dimmed: takes no guidance; there are seed, resolution" in said, said
    images = [values(path) for path in sorted(drawn.rglob("*_T1w.nii.gz"))]
    assert len(images) == 3 and 0.5 <= images[0].max() != images[1].max()
    real = [values(scan.image) for scan in read_cohort(brains)]
    scaled = [[image / np.percentile(image[image > 0], 99.5) for image in side] for side in (real, images)]
    means = [np.mean([image[image > 0].clip(max=1).mean() for image in side]) for side in scaled]
    rows = pd.read_csv(out / "tables" / "comparison.csv").set_index("name")
    assert rows.loc["brightness", "title"] == "Mean intensity, ratio of means"
    assert rows.loc["brightness", "value"] == pytest.approx(means[1] / means[0], abs=0.01)
    table = pd.read_csv(out / "tables" / "images.csv").set_index("method")
    assert table.loc["drawn", "brightness"] == rows.loc["brightness", "value"]
    assert set(pd.read_csv(out / "tables" / "regions.csv")["region"]) == {"Dark", "Bright"}
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert "Brightness → 1" in page and "drawn: brightness" in page and "halves by intensity" in page
    assert "brightness" in said[said.index("--protocol {both") :]


def test_its_registration_takes_a_shifted_template_back(program, tmp_path):
    template = load_template().to(load_template().grid.at_spacing(4.0))
    moved = template.image.roll(1, dims=3)
    write_volume(tmp_path / "moved.nii.gz", moved, template.grid)
    said = program(("register", tmp_path / "moved.nii.gz", tmp_path / "out", "--method=centres", "--affine=never"))
    assert "1 image(s) registered" in said, said
    warped = values(next(tmp_path.rglob("*_desc-warped_T1w.nii.gz")))
    np.testing.assert_allclose(warped, values(tmp_path / "moved.nii.gz"), atol=0.02)
