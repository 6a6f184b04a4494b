"""`cortexgen evaluate --segmenter` as users run it, with a segmenter of seconds."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.simulation.cohort import simulate_cohort

pytestmark = pytest.mark.usefixtures("small_segmenter")
QUICK = (
    "--labels",
    "none",
    "--features",
    "null",
    "--random_features",
    "false",
    "--protocol",
    "standard",
    "--pairs",
    "2",
)
QUICK += ("--features", "null")  # which no test here is about
QUICK += ("--resamples", "20", "--device", "cpu", "--precision", "32", "--segmenter")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Simulated subjects, others, and these with the labels of one another."""
    root = tmp_path_factory.mktemp("sets")
    for name, seed, n in (("real", 3, 6), ("good", 5, 4)):
        simulate_cohort(root / name, subjects=n, seed=seed, spacing=8.0, progress=False)
    shutil.copytree(root / "good", root / "bad")
    for path in (root / "bad").glob("sub-*/anat/*_dseg.nii.gz"):
        image = nib.load(path)
        labels = np.roll(np.asarray(image.dataobj), 3, axis=1)
        nib.save(nib.Nifti1Image(labels, image.affine, image.header), path)
    return root / "real", root / "good", root / "bad"


def rows(out: Path, name: str = "labels") -> list[dict[str, Any]]:
    return list(json.loads((out / "tables" / f"{name}.json").read_text(encoding="utf-8"))["rows"])


def held_out(real: Path) -> str:
    return ",".join(sorted(path.name for path in real.glob("sub-*"))[:2])


def test_right_labels_are_worth_more_than_wrong_ones_and_nothing_is_trained_twice(
    sets: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, good, bad = sets
    call = ["evaluate", str(real), f"good={good}", f"bad={bad}", str(tmp_path / "out"), *QUICK, "120"]
    call += ["--held_out", held_out(real), "--augment", "2"]
    run(call)
    found = {(r["set"], r["learned"], r["n_learned"], r["judged"]): r for r in rows(tmp_path / "out")}
    held = "held-out real brains"
    for judged in ((("good", held), ("bad", held)), (("real brains", "good"), ("real brains", "bad"))):
        right, wrong = (
            next(
                r["dice"]
                for k, r in found.items()
                if k[0] == name and k[1] == learned and k[3] == at and k[2] in (0, 4)
            )
            for name, (learned, at) in zip(("good", "bad"), judged, strict=True)
        )
        assert right > wrong + 0.05
    alone, beside = found["good", "real brains", 2, held], found["good", "real brains and good", 2, held]
    assert (alone["n_synthetic"], beside["n_synthetic"], beside["n"]) == (0, 4, 2)
    reference = found["good", "real brains", 4, held]
    assert reference["dice"] == found["bad", "real brains", 4, held]["dice"]
    assert reference["dice_low"] <= reference["dice"] <= reference["dice_high"]
    classes = [
        r["dice"] for r in rows(tmp_path / "out", "labels_classes") if r["set"] == "good" and r["judged"] == held
    ]
    assert len(classes) > 4
    assert "What the labels are worth" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("cortexgen.evaluation.usefulness.train_segmenter", never)
    before = rows(tmp_path / "out")
    run(call)
    assert rows(tmp_path / "out") == before


def test_training_subjects_may_be_a_cohort_of_their_own(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, good, bad = sets
    people = [path for path in real.glob("sub-*") if path.name > "sub-0004"]  # a name is a person's
    train = tmp_path / "train"
    for path in people:
        shutil.copytree(path, train / path.name)
    shutil.copy(real / "dseg.tsv", train)
    run(
        [
            "evaluate",
            str(good),
            f"bad={bad}",
            str(tmp_path / "out"),
            *QUICK,
            "2",
            "--train",
            str(train),
            "--augment",
            "9,all",
        ]
    )
    found = rows(tmp_path / "out")
    assert [(r["learned"], r["n_learned"], r["judged"], r["n"]) for r in found] == [
        ("real brains", 2, "held-out real brains", 4),
        ("real brains", 2, "bad", 4),
        ("bad", 0, "held-out real brains", 4),
        ("real brains and bad", 2, "held-out real brains", 4),  # 9 are more than there are
    ]


def test_a_label_map_that_cannot_be_used_costs_the_segmenter_alone_a_brain(
    sets: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    real, good, _ = sets
    shutil.copytree(good, tmp_path / "odd")
    path = next((tmp_path / "odd").glob("sub-0001/anat/*_dseg.nii.gz"))
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.where(np.asarray(image.dataobj) == 3, 1035, 0).astype(np.int16), image.affine), path)
    out = tmp_path / "out"
    call = ["evaluate", str(real), str(tmp_path / "odd"), str(out), *QUICK, "2", "--held_out", held_out(real)]
    run(call)
    assert "unknown label 1035" in note(out) and {r["n"] for r in rows(out) if r["judged"] == "odd"} == {3}
    assert {r["n"] for r in rows(out, "comparison")} == {4}
    place = call.index("--segmenter")
    run(call[:place] + call[place + 2 :])
    assert not (out / "tables" / "labels.json").exists() and (out / "tables" / "comparison.json").exists()


def note(out: Path) -> str:
    return str(json.loads((out / "evaluation.json").read_text(encoding="utf-8"))["notes"])


def test_what_cannot_be_measured_is_a_note(sets: tuple[Path, Path, Path], tmp_path: Path) -> None:
    real, good, _ = sets
    shutil.copytree(good, tmp_path / "bare")
    for path in (tmp_path / "bare").glob("sub-*/anat/*_dseg.*"):
        path.unlink()
    run(["evaluate", str(real), str(tmp_path / "bare"), str(tmp_path / "b"), *QUICK, "2", "--held_out", held_out(real)])
    assert "2 or more brains with a label map, found 0" in note(tmp_path / "b")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--augment", "5"], "give --segmenter"),
        (["--segmenter", "5", "--held_out", ""], "give --train, or --held_out"),
        (["--segmenter", "5", "--registration", "true"], "measures sets of brains"),
        (["--segmenter", "-1"], "expected 0 or more steps"),
        (["--segmenter", "5", "--augment", "some"], "expected numbers of subjects, or all, got some"),
        (["--segmenter", "5", "--augment", "1"], "2 real subjects or more"),
        (["--segmenter", "5", "--segmenter_seeds", "0"], "expected 1 seeds or more"),
    ],
)
def test_mistakes_are_one_line(sets: tuple[Path, Path, Path], tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call = ["evaluate", str(sets[0]), str(sets[1]), str(tmp_path / "out"), "--labels", "none"]
        run([*call, "--held_out", "0001,0002", *options])
