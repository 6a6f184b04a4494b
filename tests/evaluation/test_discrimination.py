"""Rows of the classifiers' table, and what of them is kept."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.evaluation import discrimination
from cortexgen.evaluation.discrimination import Classifiers, Telling
from cortexgen.evaluation.frame import frame
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store
from cortexgen.metrics.resampling import Interval

SIDE = 20


def write(root: Path, n: int, seed: int, texture: float) -> Path:
    """Balls of various sizes, rippled or not."""
    root.mkdir()
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 3, indexing="ij")
    for k in range(n):
        inside = np.sqrt(x**2 + y**2 + z**2) < rng.uniform(0.7, 0.8)
        image = inside * (0.5 + texture * np.sin(16 * y) + 0.03 * rng.normal(size=x.shape))
        nib.save(nib.Nifti1Image(image.clip(0, 1).astype(np.float32), np.diag([8.0, 8, 8, 1])), root / f"{k:02}.nii.gz")
    return root


def store(root: Path) -> Store:
    found = Store(root.name, BrainSet(root, rescale=False), root.parent / "work" / root.name)
    found.fill()
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("discrimination")
    made = {"real": (20, 0, 0.0), "other": (12, 1, 0.2), "few": (9, 2, 0.0)}
    return {name: store(write(folder / name, *how)) for name, how in made.items()}


def test_a_set_that_differs_is_told_and_real_brains_are_not(
    stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, telling = stores["real"], Telling(60, precision="32")
    row = Classifiers(real, frame(real), tmp_path, telling, 50).row(stores["other"])
    auc, floor = row["auc"], row["auc_floor"]
    assert isinstance(auc, Interval) and isinstance(floor, Interval)
    assert auc.value > 0.95 and auc.low <= auc.value <= auc.high and floor.low < 0.6 and floor.value < 0.9
    assert (row["n_real"], row["n"], row["n_floor"]) == (20, 12, 10)

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(discrimination, "held_out_scores", never)
    assert Classifiers(real, frame(real), tmp_path, telling, 50).row(stores["other"]) == row
    with pytest.raises(AssertionError, match="trained again"):
        Classifiers(real, frame(real), tmp_path, replace(telling, steps=61), 50).row(stores["other"])


def test_too_few_brains_for_the_folds(stores: dict[str, Store], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs 10 or more brains of each kind, got 9"):
        Classifiers(stores["real"], frame(stores["real"]), tmp_path, Telling(2)).row(stores["few"])


def test_the_command_writes_the_table(stores: dict[str, Store], tmp_path: Path) -> None:
    quick = "--labels none --features null --random_features false --protocol standard --pairs 2"
    quick += " --resamples 10 --device cpu"
    real, other, few = (str(stores[name].brains.path) for name in ("real", "other", "few"))
    call = ["evaluate", real, other, few, str(tmp_path / "out"), *quick.split(), "--rescale", "false"]
    run([*call, "--classifier", "2"])
    text = (tmp_path / "out" / "tables" / "classifier.md").read_text(encoding="utf-8")
    assert "other" in text and "few |" not in text
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert "Told apart by a network" in page and "few: classifier not measured: a classifier needs 10" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--classifier", "-1"], "expected 0 or more"), (["--classifier", "5", "--registration"], "measures sets")],
)
def test_mistakes_are_one_line(options: list[str], message: str, stores: dict[str, Store], tmp_path: Path) -> None:
    real = str(stores["real"].brains.path)
    with pytest.raises(UserError, match=f"--classifier: {message}"):
        run(["evaluate", real, f"same={real}", str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_the_floor_is_of_two_halves(stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[tuple[str, int]]]] = []

    def scores(sides: tuple[list[partial], list[partial]], *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append([[(read.args[0].name, read.args[1]) for read in side] for side in sides])
        return torch.arange(len(sides[0])).double(), torch.arange(len(sides[1])).double()

    monkeypatch.setattr(discrimination, "held_out_scores", scores)
    Classifiers(stores["real"], frame(stores["real"]), tmp_path, Telling(1), 5).row(stores["other"])
    whole, floor = seen
    assert [len(side) for side in whole] == [20, 12] and whole[1][0][0] == "other"
    assert [len(side) for side in floor] == [10, 10] and not {*floor[0]} & {*floor[1]}
    assert {name for side in floor for name, _ in side} == {"real"}
