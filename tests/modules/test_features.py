"""Features through the command line: what they learn, and what an evaluation makes of them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.data.appearance import AppearanceDataModule
from cortexgen.data.style import STYLE
from cortexgen.errors import UserError
from cortexgen.evaluation.trained import RegionFeatures
from cortexgen.io import read_volume
from cortexgen.io.bids import derivative
from cortexgen.modules import FeatureModule
from cortexgen.weights import load_checkpoint, load_features

QUICK = "--labels none --random_features false --protocol standard --pairs 2 --resamples 10 --device cpu"


@pytest.fixture(scope="module")
def fitted(cohort, registered, verb, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "run"
    where = ("--data.root", cohort, "--data.registered", registered[1], "--trainer.default_root_dir", folder)
    verb("fit", "features.yaml", *where)
    return folder


@pytest.fixture(scope="module")
def module(fitted) -> FeatureModule:
    return load_checkpoint(fitted / "checkpoints" / "last.ckpt")[0].eval()


@pytest.fixture(scope="module")
def data(cohort, registered):
    module = AppearanceDataModule(cohort, registered[1], crop="brain", val=1)
    module.setup("fit")
    return module


@pytest.fixture(scope="module")
def weights(fitted, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    run(["export", str(fitted / "checkpoints" / "last.ckpt"), str(path)])
    return path


def losses(fitted: Path) -> list[float]:
    with open(next(fitted.glob("logs/*/metrics.csv")), newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_what_answers_are_scaled_by_is_of_the_training_people(module, data, registered):
    assert list(module.contract["answers"]) == ["age", "sex", *STYLE]
    logs = []
    for scan in data.side("train"):
        labels, grid = read_volume(derivative(registered[1], scan.name, "dseg", desc="warped"), labels=True)
        counts = np.bincount(labels.numpy().ravel(), minlength=18)[1:]
        logs.append(np.log(np.maximum(counts * grid.voxel_volume / 1000, 0.01)))
    np.testing.assert_allclose(module.contract["volumes"]["mean"], np.mean(logs, axis=0), rtol=1e-4)
    np.testing.assert_allclose(module.contract["volumes"]["std"], np.std(logs, axis=0, ddof=1), rtol=1e-4, atol=1e-6)


def test_it_learns(fitted, module, data):
    found = losses(fitted)
    assert np.mean(found[-10:]) < 0.5 * np.mean(found[:5])
    template = data.template
    fresh = FeatureModule(widths=(4, 8, 8, 8, 12)).eval()
    fresh.contract = module.contract

    def error(of: FeatureModule) -> float:
        scans = data.side("train")
        seen = [of.seen(data.reader.image(scan), template)[1]["age"] for scan in scans]
        return float(np.abs(np.array(seen) - [scan.covariates["age"] for scan in scans]).mean())

    assert error(module) < 0.6 * error(fresh)


def test_one_brains_features_do_not_depend_on_others(module, data):
    image = data.reader.image(data.side("val")[0])
    features, answers = module.seen(image, data.template)
    assert features.shape == (18 * 24,) and set(answers) == {"age", "sex", *STYLE, *data.template.classes[1:]}
    assert torch.equal(features, module.seen(image, data.template)[0]) and 0 < answers["sex"] < 1
    assert not torch.equal(features, module.seen(image * 0.9, data.template)[0])  # brightness is no matter of a norm


def test_other_templates_and_covariates_are_refused(module, data, cohort, registered, verb, tmp_path):
    module.contract["template"] = dict(module.contract["template"], hash="another")
    with pytest.raises(UserError, match="of another template than MNI152NLin2009aSym"):
        module.regions(data.template)
    where = ("--data.root", cohort, "--data.registered", registered[1], "--trainer.default_root_dir", tmp_path)
    with pytest.raises(UserError, match="covariate 'handedness'"):
        verb("fit", "features.yaml", *where, "--model.covariates", "[age, handedness]")


def test_weights_keep_features(weights, data):
    again = load_features(weights)
    image = data.reader.image(data.side("val")[0])
    features = RegionFeatures(weights)
    assert features.name == "mine" and again.weights_hash() == features.sha256
    assert again.seen(image, load_template())[0].isfinite().all()
    with pytest.raises(UserError, match="features need a FeatureModule's"):
        load_features("register-mni152-2mm")


def test_an_evaluation_by_them(weights, cohort, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(cohort, other)
    with open(other / "participants.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for name in ("a", "b"):  # ten and more brains
        for row in list(rows[:5]):
            new = row["participant_id"] + name
            shutil.copytree(other / row["participant_id"], other / new)
            for path in (other / new).rglob(f"{row['participant_id']}_*"):
                path.rename(path.with_name(path.name.replace(row["participant_id"], new)))
            rows.append(row | {"participant_id": new})
    with open(other / "participants.tsv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    run(["evaluate", str(cohort), str(other), str(tmp_path / "out"), "--features", str(weights), *QUICK.split()])
    tables = tmp_path / "out" / "tables"
    found = {row["name"]: row for row in json.loads((tables / "comparison.json").read_text())["rows"]}
    assert "mmd_region" in found and "mine (sha256" in found["fid_region"]["source"]
    rows = json.loads((tables / "conditions.json").read_text())["rows"]
    assert [row["covariate"] for row in rows] == ["age", "sex"] and rows[0]["n"] == 15
    assert "Covariates, as asked for" in (tmp_path / "out" / "evaluation.html").read_text()


def test_brains_that_are_not_in_template_space_have_none(weights, cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("cortexgen.evaluation.trained.ALIGNED", 1.1)
    run(["evaluate", str(cohort), f"same={cohort}", str(tmp_path / "out"), "--features", str(weights), *QUICK.split()])
    notes = json.loads((tmp_path / "out" / "evaluation.json").read_text())["notes"]
    assert any("real brains aren't aligned to MNI152NLin2009aSym" in note for note in notes)
    names = {r["name"] for r in json.loads((tmp_path / "out" / "tables" / "comparison.json").read_text())["rows"]}
    assert names and not any(name.endswith("_region") for name in names)
