"""Two Dask workers, of which one is killed in the middle: no command loses anything."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cortexgen.cli import run
from cortexgen.data.cohort import read_cohort
from cortexgen.io.bids import read_tsv
from cortexgen.io.output import read_record
from cortexgen.runner import cohort as module
from cortexgen.runner.cohort import Runner
from cortexgen.weights import load_checkpoint, save_weights

distributed = pytest.importorskip("distributed")
DEADLY = ("sub-0003", "sub-synth0003")  # of five
QUICK = (
    "--labels",
    "given",
    "--features",
    "null",
    "--protocol",
    "standard",
    "--pairs",
    "3",
    "--resamples",
    "2",
    "--device",
    "cpu",
)
QUICK += ("--features", "null")  # which no test here is about
SMALL = ("--resolution", "8", "--steps", "2", "--correction", "0")
WARPED = ("--images", "*_T1w.nii.gz", "--label_pattern", "*_dseg.nii.gz")
CALLS = {
    "preprocess": ("preprocess", "FINE", "OUT", "--config", "STEPS"),
    "register": ("register", "COHORT", "OUT", "--checkpoint", "STAGE_1", "--affine", "never"),
    "generate": ("generate", "OUT", "--checkpoint", "STAGE_2", "--num_samples", "5", *SMALL),
    "evaluate": ("evaluate", "COHORT", "same=COHORT", "OUT", *QUICK),
    "registration": ("evaluate", "COHORT", "same=COHORT", "OUT", "--registration", *WARPED),
}
FAST = ("generate", "evaluate")  # the others' runner is the same, and each worker imports all of it again


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, local_directory=str(tmp_path_factory.mktemp("dask"))) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fine(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort's images with voxels of 4 mm: preprocessing refuses coarser ones."""
    root = tmp_path_factory.mktemp("fine")
    for scan in read_cohort(cohort):
        image = nib.load(scan.image)
        array = np.asarray(image.dataobj).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        nib.save(nib.Nifti1Image(array, image.affine @ np.diag([0.5, 0.5, 0.5, 1])), root / f"{scan.name}_T1w.nii.gz")
    return root


@pytest.fixture(scope="module")
def trained(registered: tuple[Path, Path], trained_generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Barely trained weights of both stages."""
    checkpoint = trained_generator / "checkpoints" / "last.ckpt"
    module, _ = load_checkpoint(checkpoint)
    module.contract["log_volume_std"] *= 10  # of five simulated subjects, whose range says little
    small = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(small, module)
    return {"STAGE_1": registered[0] / "checkpoints" / "last.ckpt", "STAGE_2": small}


def make_deadly(flag: Path) -> None:
    """Have the process that runs this killed once, while it does `DEADLY`."""
    row = module._row

    def deadly(work: Any, name: str, *others: Any) -> Any:
        if name in DEADLY and not flag.exists():
            flag.touch()
            threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return row(work, name, *others)

    module._row = deadly


def results(out: Path) -> dict[str, Any]:
    """Images byte for byte, and tables without times."""
    found: dict[str, Any] = {p.name: p.read_bytes() for p in out.rglob("*.nii.gz")}
    found |= {p.name: json.loads(p.read_text()) for p in out.glob("tables/*.json")}
    found |= {
        p.name: [row | dict.fromkeys(("seconds", "processor_seconds")) for row in read_tsv(p)]
        for p in out.glob("*.tsv")
    }
    return found | {"problems": read_record(out / "evaluation.json").get("problems")}


@pytest.mark.parametrize("command", [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CALLS])
def test_a_killed_worker_loses_nothing(
    command: str, cohort: Path, fine: Path, trained: dict[str, Path], cluster: Any, tmp_path: Path
) -> None:
    steps, flag = tmp_path / "steps.yaml", tmp_path / "killed"
    steps.write_text("steps: [{class_path: Normalize}]\n")

    def call(out: Path, *more: str) -> dict[str, Any]:
        given = {"COHORT": cohort, "same=COHORT": f"same={cohort}", "FINE": fine, "OUT": out, "STEPS": steps} | trained
        run([str(given.get(word, word)) for word in CALLS[command]] + [*more])
        return results(out)

    with distributed.Client(cluster) as client:
        client.run(make_deadly, flag)
    far = call(tmp_path / "far", "--scheduler", cluster.scheduler_address)
    assert flag.exists() and len(far) > 2
    assert far == call(tmp_path / "near")


def dies_once(k: int, flag: Path) -> dict[str, Any]:
    if k == 63 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return {"status": "ok", "k": k}


def test_64_scans_of_which_one_kills_its_worker(cluster: Any, tmp_path: Path) -> None:
    work, scans = partial(dies_once, flag=tmp_path / "flag"), {f"s{k}": k for k in range(64)}
    rows = Runner(scheduler=cluster.scheduler_address).run(work, scans, "testing")
    assert (tmp_path / "flag").exists() and [row["k"] for row in rows.values()] == [*range(64)]
