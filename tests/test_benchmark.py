"""`cortexgen benchmark` from a cohort to its tables."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cortexgen.benchmark.calls import PARTLY, Cost, call
from cortexgen.benchmark.tables import generator_tables
from cortexgen.cli import run
from cortexgen.errors import UserError
from cortexgen.evaluation.tables import REAL

SMALL = {"held_out": "*2,*4", "samples": 4, "resamples": 20, "pairs": 6, "labels": "none", "steps": 2}


def bench(cohort: Path, out: Path, **options: object) -> None:
    words = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    run(["benchmark", str(cohort), str(out), *words])


def rows(out: Path, name: str) -> dict[str, dict]:
    found = json.loads((out / "tables" / f"{name}.json").read_text())["rows"]
    return {row["method"]: row for row in found if not row.get("published")}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls without processes of their own, whose starts take seconds; those of `compared` have them."""

    def called(words: Iterable[object], log: Path, threads: int) -> Cost:
        try:
            run([*map(str, words)])
        except UserError as error:
            if PARTLY not in str(error):
                raise
            return Cost(1.0, 2.0, 512.0, str(error))
        return Cost(1.0, 2.0, 512.0)

    monkeypatch.setattr("cortexgen.benchmark.plan.call", called)
    monkeypatch.setattr("cortexgen.benchmark.run.call", called)


@pytest.fixture(scope="module")
def compared(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generators: one trained here, and real people's images in the place of another's brains."""
    out = tmp_path_factory.mktemp("benchmark") / "out"
    theirs = "{people: " + str(cohort) + "}"
    bench(cohort, out, models="hagan", sets=theirs, **SMALL)
    return out


def test_page_in_a_browser(compared: Path, look: Callable[[Path], None]) -> None:
    look(compared / "benchmark.html")


def test_a_model_is_trained_drawn_from_measured_and_its_cost_known(compared: Path) -> None:
    images, costs = rows(compared, "images"), rows(compared, "costs")
    assert {"HA-GAN", "people"} <= set(images)
    assert images["HA-GAN"]["n"] == 4 and images["people"]["n"] == 5
    assert images["HA-GAN"]["distance"] > 2 * images["people"]["distance"]  # it has hardly begun
    cost = costs["HA-GAN"]
    assert cost["budget"] == "2 steps" and cost["batches"] >= 1 and cost["parameters"] > 0
    assert 0 < cost["seconds"] < 60 * cost["trained"] + 60 and 0.1 < cost["memory"] < 8
    drawn = sorted((compared / "models" / "hagan" / "brains").glob("sub-*/anat/*_T1w.nii.gz"))
    assert len(drawn) == 4
    page = (compared / "benchmark.html").read_text()
    assert "HA-GAN" in page and "Sun et al." in page and page.count("<img") == 4


def test_published_rows_stand_beside_and_are_marked(compared: Path) -> None:
    found = json.loads((compared / "tables" / "images.json").read_text())["rows"]
    published = {row["method"]: row for row in found if row.get("published")}
    assert published["HA-GAN"]["ms_ssim"] == 0.78 and "Table 1" in published["HA-GAN"]["published"]


@pytest.mark.usefixtures("in_process", "small_segmenter")
def test_what_was_done_is_not_done_again_and_more_can_be_measured(cohort: Path, compared: Path) -> None:
    def state() -> dict[Path, int]:
        files = (p for p in (compared / "models").rglob("*") if p.is_file())
        return {p: p.stat().st_mtime_ns for p in files}

    before = state()
    bench(cohort, compared, models="hagan", segmenter=2, **{**SMALL, "sets": "{people: " + str(cohort) + "}"})
    assert state() == before
    labels = rows(compared, "labels")
    assert set(labels) == {"real against real", "people"}  # HA-GAN makes none
    assert all(0 < row[name] < 1 for row in labels.values() for name in ("right", "useful"))
    with pytest.raises(UserError, match=r"held_out \*2,\*4, this one has \*1,\*4"):
        bench(cohort, compared, models="hagan", **{**SMALL, "held_out": "*1,*4"})


@pytest.mark.usefixtures("in_process")
def test_a_model_that_fails_is_named_and_the_others_go_on(
    cohort: Path, compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverged(*_: object) -> Cost:
        raise UserError("the training diverged")

    monkeypatch.setattr("cortexgen.benchmark.plan.call", diverged)
    with pytest.raises(UserError, match=r"none of 1 model.*hagan: the training diverged"):
        bench(cohort, tmp_path / "out", models="hagan", **SMALL)
    with pytest.raises(UserError, match=r"1 of 2 model.*the others are compared; vaegan: the training diverged"):
        bench(cohort, compared, models="hagan,vaegan", **{**SMALL, "sets": "{people: " + str(cohort) + "}"})
    assert "the training diverged" in (compared / "benchmark.html").read_text()
    with pytest.raises(UserError, match="there is no affine"):
        bench(cohort, tmp_path / "out", **{**SMALL, "models": "hagan,affine"})


@pytest.mark.usefixtures("in_process")
def test_a_set_that_cannot_be_measured_does_not_cost_the_others(cohort: Path, compared: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank"
    shutil.copytree(cohort, blank)
    for path in blank.glob("sub-*/anat/*_T1w.nii.gz"):
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine), path)
    theirs = f"{{people: {cohort}, blank: {blank}}}"
    bench(cohort, compared, models="hagan", **{**SMALL, "sets": theirs})
    assert {"HA-GAN", "people"} <= set(rows(compared, "images"))
    assert "blank" in (compared / "benchmark.html").read_text()


def test_what_was_finished_is_not_overwritten_by_other_settings(cohort: Path, compared: Path) -> None:
    before = (compared / "models" / "hagan" / "record.json").read_text()
    for other, said in (({"seed": 3}, "seed 0, now it is 3"), ({"steps": 1}, "budget 2 steps, now it is 1 steps")):
        with pytest.raises(UserError, match=said):
            bench(cohort, compared, models="hagan", **{**SMALL, **other})
    assert (compared / "models" / "hagan" / "record.json").read_text() == before


@pytest.mark.parametrize(
    "options, said",
    [
        ({"held_out": "0009"}, "0009 fits no subject"),
        ({"sets": "{vaegan: COHORT}"}, "vaegan is the name of a model"),
        ({"sets": "{theirs: COHORT/none}"}, "theirs: there is no"),
        ({"sets": "{real: COHORT}"}, "another set is called 'real' too"),
        ({"weights": "{vaegan: COHORT/none.ckpt}"}, "there is no vaegan; there are hagan"),
        ({"weights": "{hagan: COHORT/none.ckpt}"}, "none.ckpt"),
        ({"models": "cortexgen", "weights": "{cortexgen: COHORT}"}, "cortexgen has 0 trainings"),
        ({"models": "vaegan", "weights": "{vaegan: HAGAN}"}, "holds HAGAN, vaegan is VAEGAN"),
    ],
)
def test_mistakes_are_said_before_anything_is_trained(
    cohort: Path, compared: Path, tmp_path: Path, options: dict[str, str], said: str
) -> None:
    last = compared / "models" / "hagan" / "run" / "checkpoints" / "last.ckpt"
    words = {k: v.replace("COHORT", str(cohort)).replace("HAGAN", str(last)) for k, v in options.items()}
    with pytest.raises(UserError, match=said):
        bench(cohort, tmp_path / "out", **{**SMALL, "models": "hagan", **words})
    assert not (tmp_path / "out" / "models").exists()


def test_a_budget_is_needed(cohort: Path, tmp_path: Path) -> None:
    without = {k: v for k, v in SMALL.items() if k != "steps"}
    with pytest.raises(UserError, match="no budget: give --minutes or --steps"):
        bench(cohort, tmp_path / "out", models="hagan", **without)
    with pytest.raises(UserError, match="give one of them"):
        bench(cohort, tmp_path / "out", models="hagan", minutes=1, **SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("in_process")
def test_registrations_are_compared(cohort: Path, tmp_path: Path) -> None:
    bench(cohort, tmp_path / "out", registration="true", models="affine,one-pass", held_out="*2,*4")
    found = rows(tmp_path / "out", "registration")
    nothing = found["no registration"]  # what `evaluate` measures by itself
    assert found["affine alone"]["dice"] == pytest.approx(nothing["dice"], abs=1e-3)
    assert found["affine alone"]["n"] == nothing["n"] == 2 and found["affine alone"]["folded"] == 0
    assert abs(found["cortexgen, one pass"]["dice"] - nothing["dice"]) > 1e-3
    costs = rows(tmp_path / "out", "costs")
    assert set(costs) == {"affine alone", "cortexgen, one pass"}
    assert [costs["affine alone"][name] for name in ("seconds", "processor", "memory")] == [0.5, 1, 0.5]  # of two


def test_the_cost_of_a_call_is_its_own(tmp_path: Path) -> None:
    cost = call(["--version"], tmp_path / "log", 1)
    assert 0.05 < cost.processor < cost.wall + 5 and 20 < cost.peak_mib < 2000
    with pytest.raises(UserError, match="unknown command 'sing'"):
        call(["sing"], tmp_path / "log", 1)
    assert isinstance(cost, Cost)


def test_tables_take_intervals_and_floors_of_an_evaluation(tmp_path: Path) -> None:
    row = {"set": "a", "name": "told_apart_random", "protocol": "standard", "n": 9, "value": 0.8}
    row |= {"value_low": 0.7, "value_high": 0.9, "floor": 0.5, "floor_low": 0.4, "floor_high": 0.6}
    (tmp_path / "tables").mkdir()
    few = row | {"set": "few", "n": 2, "value": 0.99, "floor": None}  # too few for a floor, which others have
    rows_of = [few, row, row | {"set": "b", "value": 0.6}]
    (tmp_path / "tables" / "comparison.json").write_text(json.dumps({"rows": rows_of}))
    record = {"title": "A", "key": {"budget": "1 min"}, "training": []}
    record["training"] += [{"finished": True, "wall": 90.0, "peak_mib": 512, "batches": 3}, {"finished": False}]
    record["use"] = {"wall": 10.0, "processor": 18.0, "peak_mib": 2048}
    told = {"set": "a", "auc": 0.75, "auc_low": 0.65, "auc_high": 0.85, "auc_floor": 0.55}
    (tmp_path / "tables" / "classifier.json").write_text(json.dumps({"rows": [told]}))
    tables = generator_tables({"a": record}, tmp_path, 5)
    text = tables["images"].to_markdown().replace("\\", "")
    assert "0.80 [0.70, 0.90]" in text and "0.50 [0.40, 0.60]" in text and "**0.60**" in text
    assert "0.75 [0.65, 0.85]" in text and [r["network"] for r in tables["images"].rows if r["method"] == REAL] == [
        0.55
    ]
    assert "VAE-GAN" not in text  # of which nobody published this
    assert "labels" not in tables
    about = {"set": "a", "n_learned": 0, "n_synthetic": 0, "n": 4}
    worth = [
        about | {"learned": "real brains", "n_learned": 20, "judged": "held-out real brains", "dice": 0.9},
        about | {"learned": "real brains", "n_learned": 20, "judged": "a", "dice": 0.8, "n": 5},
        about | {"learned": "a", "n_synthetic": 5, "judged": "held-out real brains", "dice": 0.7},
        about | {"learned": "real brains", "n_learned": 5, "judged": "held-out real brains", "dice": 0.6},
    ]
    (tmp_path / "tables" / "labels.json").write_text(json.dumps({"rows": worth}))
    labels = generator_tables({"a": record}, tmp_path, 5)["labels"].rows
    assert [(r["method"], r["n"], r["right"], r["useful"]) for r in labels] == [
        ("real against real", 20, 0.9, 0.9),
        ("A", 5, 0.8, 0.7),
    ]
    asked = {"set": "a", "n": 5, "n_real": 20}
    seen = [
        asked
        | {"covariate": "age", "error": 7.0, "error_real": 5.0, "slope": 0.4, "slope_low": 0.2, "slope_high": 0.6},
        asked | {"covariate": "sex", "right": 0.6, "right_real": 0.9},
    ]
    seen[0] |= {"slope": 0.4, "slope_low": 0.2, "slope_high": 0.6}
    (tmp_path / "tables" / "conditions.json").write_text(json.dumps({"rows": seen}))
    parts = {"set": "a", "flagged": 2, "expected": 0.25}
    (tmp_path / "tables" / "patches.json").write_text(json.dumps({"rows": [parts]}))
    found = generator_tables({"a": record}, tmp_path, 5)
    real, ours = found["conditions"].rows
    assert (real["method"], real["n"], real["age_error"], real["sex_right"]) == (REAL, 20, 5.0, 0.9)
    assert (ours["method"], ours["n"], ours["age_error"], ours["sex_right"]) == ("A", 5, 7.0, 0.6)
    assert ours["age_slope"] == (0.4, 0.2, 0.6) and real["age_slope"] is None
    assert [(r["method"], r["flagged"], r["expected"]) for r in found["copies"].rows] == [("A", 2, 0.25)]
    cost = tables["costs"].rows[0]
    assert (cost["trained"], cost["batches"], cost["seconds"], cost["processor"], cost["memory"]) == (1.5, 3, 2, 3.6, 2)
