"""The comparison of registrations scores what was written and times what was called."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import write_volume
from cortexgen.io.bids import read_tsv

HERE = Path(__file__).parent
# What is called in greedy's place answers that the template moves one voxel of 4 mm to the right, by SimpleITK.
GREEDY = """
import re
import SimpleITK as sitk

class Greedy3D:
    def execute(self, line):
        if "-rf" in line:
            return
        fixed, warp = re.search(r"-i (\\S+) \\S+ -o (\\S+)", line).groups()
        image = sitk.ReadImage(fixed)
        still = sitk.Cast(image * 0, sitk.sitkFloat32)
        sitk.WriteImage(sitk.Compose(still + 4, still, still), warp)  # LPS
"""
# A program whose child takes half a second of the processor and 400 MiB, and waits for longer.
COSTLY = """
import subprocess, sys, time
child = '''
import time
held, end = b"1" * (400 * 2**20), time.process_time() + 0.5
while time.process_time() < end:
    pass
time.sleep(2)
'''
subprocess.run([sys.executable, "-c", child], check=True)
"""


@pytest.fixture(scope="session")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of three subjects, which are the template one voxel further to the right."""
    original = load_template()
    grid = original.grid.at_spacing(4.0)
    template, root = original.to(grid), tmp_path_factory.mktemp("moved") / "three subjects"
    for name in ("sub-05", "sub-10", "sub-11"):
        for suffix, volume in (("T1w", template.image), ("dseg", template.labels)):
            path = root / name / "anat" / f"{name}_{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, torch.roll(volume, 1, 3), grid)
    (root / "participants.tsv").write_text("participant_id\tage\nsub-05\t30\nsub-10\t70\nsub-11\t50\n")
    return root


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """registration.py, with that in greedy's place."""
    packages = tmp_path / "packages"
    (packages / "picsl_greedy-1.0.dist-info").mkdir(parents=True)
    (packages / "picsl_greedy-1.0.dist-info" / "METADATA").write_text("Name: picsl-greedy\nVersion: 1.0\n")
    (packages / "picsl_greedy.py").write_text(GREEDY)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")  # main() sets them
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.syspath_prepend(str(HERE))
    return import_module("registration")


@pytest.fixture
def compare(
    benchmark: ModuleType, moved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """Runs it on the cohort; returns its tables by name."""

    def run(*options: str) -> dict[str, list[dict[str, Any]]]:
        monkeypatch.setattr(sys, "argv", ["registration.py", str(moved), str(tmp_path / "out"), *options])
        benchmark.main()
        return {path.stem: read_tsv(path) for path in (tmp_path / "out").glob("*.tsv")}

    return run


def test_fields_that_others_write_are_scored_where_they_lead(compare: Callable[..., Any]) -> None:
    tables = compare("--methods", "affine_only,greedy")
    still, greedy = tables["registration"][:2], tables["registration"][2:]
    assert [row["participant_id"] for row in greedy] == ["sub-05", "sub-10"]
    for row in greedy:
        assert row["dice"] == row["dice_Cerebral-Cortex"] == 1
        assert row["hd95_cortex"] == row["sd_log_jacobian"] == row["folded_cubes"] == 0
        assert row["ssim"] > 0.999 and row["psnr"] > 40
    assert all(row["dice"] < 0.9 and row["hd95_cortex"] > 3 for row in still)
    (apart,) = (row for row in tables["differences"] if row["measure"] == "dice")
    assert apart["difference"] == pytest.approx(still[0]["dice"] - 1, abs=1e-5) and apart["wins"] == 0
    bands = ("under 40", "40 to 60", "60 and over")
    assert [tables["ages"][1][f"subjects, {band}"] for band in bands] == [1, 0, 1]


def test_a_call_costs_what_its_processes_take_of_the_processor(benchmark: ModuleType, tmp_path: Path) -> None:
    cost = benchmark.call([sys.executable, "-c", COSTLY], tmp_path / "log")
    assert 0.5 < cost["seconds"] < 2 and 400 < cost["peak_mib"] < 480
    with pytest.raises(UserError, match="exit status 3; no such brain"):
        benchmark.call([sys.executable, "-c", "import sys; print('no such brain'); sys.exit(3)"], tmp_path / "log")


def test_the_seconds_of_one_pass_are_the_whole_commands_by_image(
    benchmark: ModuleType, compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def call(command: list[object], log: Path) -> dict[str, float]:
        commands.append([str(part) for part in command[1:]])
        return {"seconds": 9.0, "peak_mib": 1000.0}

    monkeypatch.setattr(benchmark, "call", call)
    monkeypatch.setattr(benchmark.Cohort, "score", lambda cohort, scan, field: {"dice": 0.5})
    rows = compare("--methods", "one_pass,refined", "--references", "one_pass", "--held-out-digits", "015")[
        "registration"
    ]
    assert [row["seconds"] for row in rows] == [3.0] * 6  # three images a command
    assert [command[2] for command in commands] == ["register", "register"]
    assert "--refine" not in commands[0] and commands[1][5:] == ["--refine", "20"]
    assert len(list(Path(commands[0][3]).iterdir())) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "greedy,gready"), "--methods: no gready; there are affine_only, one_pass"),
        (("--methods", "syn"), "syn needs antspyx, which is no dependency of cortexgen: pip install antspyx"),
        (("--references", "gready"), "--references: gready not among the methods affine_only, one_pass"),
        (("--methods", "greedy", "--references", "syn"), "--references: syn not among the methods greedy"),
        (("--references", "voxelmorph", "--vxm_steps", "0"), "--references: voxelmorph not among the methods"),
        (("--methods", "affine_only", "--subjects", "05,99"), "--subjects: 99 in none of the cohorts"),
        (("--methods", "affine_only", "--subjects", "99"), "none of the subjects to measure is among its 3 scans"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    options: tuple[str, ...],
    said: str,
    benchmark: ModuleType,
    compare: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    if "syn" in options[1]:
        monkeypatch.setattr(benchmark, "version", version)  # whatever is installed
    monkeypatch.setattr(benchmark, "measure", None)  # nothing is registered first
    with pytest.raises(SystemExit) as ended:
        compare(*options)
    assert said in f"{ended.value} {capsys.readouterr().err}" and ended.value.code


def test_differences_are_those_of_the_same_subjects(benchmark: ModuleType) -> None:
    def rows(method: str, dice: dict[str, float]) -> list[dict[str, object]]:
        return [{"cohort": "c", "method": method, "participant_id": k, "dice": v} for k, v in dice.items()]

    other = {"a": 0.5, "b": 0.6, "c": 0.7, "d": 0.8, "e": 0.9}
    gains = {"a": 0.01, "b": 0.02, "c": 0.03, "d": 0.02, "e": 0.02}
    ours = {name: other[name] + gain for name, gain in gains.items()} | {"f": 0.1}
    (row,) = benchmark.tables.differences(rows("ours", ours) + rows("greedy", other), ["greedy"])
    assert row["subjects"] == row["wins"] == 5 and row["difference"] == pytest.approx(0.02)
    assert 0.01 <= row["low"] < 0.02 < row["high"] <= 0.03  # however far subjects lie apart
    few = {name: ours[name] for name in "abcd"}
    (row,) = benchmark.tables.differences(rows("ours", few) + rows("greedy", other), ["greedy"])
    assert row["subjects"] == 4 and row["low"] is row["high"] is None
