"""The wheel holds all it needs: installed elsewhere, it runs outside the source tree."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist and the wheel, each built of the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--sdist", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def installed(built):
    """The wheel installed, alone, into an empty folder."""
    wheel = next(built.glob("cortexgen-*.whl"))
    target = built / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    return target


def test_a_package_index_would_take_them(built):
    pytest.importorskip("twine", reason="twine is not installed")
    files = [*map(str, built.glob("cortexgen-*.*"))]
    assert len(files) == 2
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.count("PASSED") == 2, done.stdout + done.stderr


def outside(installed, tmp_path, *args):
    """Run Python in an empty folder, with the installed wheel before everything else."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *args], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(installed, tmp_path):
    where = outside(installed, tmp_path, "-c", "import cortexgen; print(cortexgen.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert "demo" in outside(installed, tmp_path, "-m", "cortexgen", "--help")


def test_presets_and_template_come_along(installed, tmp_path):
    printed = outside(
        installed, tmp_path, "-m", "cortexgen", "fit", "--config", "paper/generate.yaml", "--print_config"
    )
    assert "FieldDiffusionModule" in printed and "steps: 256" in printed
    classes = "from cortexgen.atlas.template import load_template; print(len(load_template().classes))"
    assert outside(installed, tmp_path, "-c", classes).strip() == "18"


def test_pages_find_their_templates(installed, tmp_path):
    page = "from cortexgen.pages.report import Report; print(Report('<b>').render())"
    assert "<h1>&lt;b&gt;</h1>" in outside(installed, tmp_path, "-c", page)


def test_licences_come_along(installed):
    """That of the code, and that of weights beside them."""
    about = next(installed.glob("cortexgen-*.dist-info"))
    assert "License-Expression: Apache-2.0 AND CC-BY-SA-3.0\n" in (about / "METADATA").read_text(encoding="utf-8")
    beside = installed / "cortexgen" / "weights"
    text = (beside / "LICENSE-CC-BY-SA-3.0.txt").read_text(encoding="utf-8")
    assert "Attribution-ShareAlike 3.0 Unported" in text
    licences = {path.name: path.read_text(encoding="utf-8") for path in about.glob("licenses/**/LICENSE*")}
    assert licences.keys() == {"LICENSE", "LICENSE-CC-BY-SA-3.0.txt"}
    assert licences["LICENSE-CC-BY-SA-3.0.txt"] == text and "Apache License" in licences["LICENSE"]
    weights, cards = ({path.stem for path in beside.glob(f"*.{kind}")} for kind in ("safetensors", "json"))
    assert weights == cards and len(weights) >= 4 and (beside / "README.md").is_file()
