"""Data modules of studies, with a stand-in for the preprocessing that copies images and keeps the contract of files."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from cortexgen.errors import UserError
from cortexgen.io.bids import derivative, read_tsv, write_tsv
from cortexgen.preprocess import Normalize
from cortexgen.studies.datamodules import ADNIDataModule, BIDSDataModule, NCANDADataModule, StudyDataModule

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")


@pytest.fixture(autouse=True)
def done(monkeypatch):
    """Replaces preprocess_cohort; returns the names of scans that were preprocessed, call by call."""
    calls = []

    def fake(scans, out, pipeline, jobs=1, scheduler=None, problems=None, threads=1):
        table, calls_now = Path(out, "preprocess.tsv"), []
        rows = {r["participant_id"]: r for r in (read_tsv(table) if table.is_file() else [])}
        for scan in scans:
            path = derivative(out, scan.name, "T1w", space="MNI152NLin2009aSym", desc="preproc")
            failed = scan.covariates.get("site") == "duke"
            if not failed and not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(scan.image, path)
                calls_now.append(scan.name)
            reason = "empty mask" if failed else None
            rows[scan.name] = {"participant_id": scan.name, "status": "failed" if failed else "ok", "reason": reason}
        for name, reason in (problems or {}).items():
            rows[name] = {"participant_id": name, "status": "failed", "reason": reason}
        write_tsv(table, rows.values())
        subjects = sorted({scan.subject for scan in scans})
        write_tsv(Path(out, "participants.tsv"), [{"participant_id": s, "brain_volume_ml": 1200.0} for s in subjects])
        calls.append(calls_now)

    monkeypatch.setattr("cortexgen.preprocess.cohort.preprocess_cohort", fake)
    return calls


def names(data):
    return [scan.name for scan in data.scans]


def ready(data, stage="fit"):
    data.prepare_data()
    data.setup(stage)
    return data


def test_adni_is_preprocessed_beside_the_study_and_read_with_its_covariates(adni, done):
    before = sorted(adni.rglob("*"))
    data = ready(ADNIDataModule(adni, groups=["CN"], val=1))
    assert data.root == adni.parent / "ADNI1 1.5T-cortexgen" and sorted(adni.rglob("*")) == before
    assert names(data) == ["sub-002S0295_ses-m06", "sub-002S0295_ses-sc", "sub-011S0021_ses-m12"]
    assert done == [names(data)] and data.problems == {}
    assert all(scan.image.is_relative_to(data.root) for scan in data.scans)
    assert [scan.covariates["age"] for scan in data.scans] == [85.4, 84.8, 72.6]
    assert all(scan.covariates["brain_volume_ml"] == 1200 for scan in data.scans)
    assert {s.subject for s in data.side("train")} & {s.subject for s in data.side("val")} == set()
    assert next(iter(data.train_dataloader()))["fixed"].shape[2:] == data.grid.shape


def test_another_selection_shares_the_folder_and_nothing_is_done_twice(adni, done):
    ready(ADNIDataModule(adni, groups=["CN"], val=1))
    again = ready(ADNIDataModule(adni, groups=["CN", "MCI"], visits="baseline", val=1))
    assert names(again) == ["sub-002S0295_ses-sc", "sub-002S0413_ses-sc"]
    assert done[1] == ["sub-002S0413_ses-sc"]


def test_the_preprocessing_is_part_of_what_weights_depend_on(adni):
    data = ready(ADNIDataModule(adni, val=1))
    (made,) = data.contract()["preprocessing"]
    assert made["Name"] == "cortexgen" and "normalize" in [step["name"].lower() for step in made["Steps"]]


def test_a_folder_preprocessed_otherwise_is_refused(adni, done):
    ready(ADNIDataModule(adni, val=1, steps=[Normalize()]))
    kept = (adni.parent / "ADNI1 1.5T-cortexgen" / "dataset_description.json").read_text()
    with pytest.raises(UserError, match=r"ADNI1 1.5T-cortexgen: holds .* preprocessed otherwise"):
        ADNIDataModule(adni, val=1).prepare_data()
    assert len(done) == 1
    assert (adni.parent / "ADNI1 1.5T-cortexgen" / "dataset_description.json").read_text() == kept


def test_failures_of_the_study_and_of_preprocessing_are_problems(ncanda):
    (next(ncanda.rglob("NCANDA_S00118/*/followup_10y")) / "structural" / "native" / "t1.nii.gz").unlink()
    with pytest.warns(UserWarning, match="2 scans of .*ncanda are left out"):
        data = ready(NCANDADataModule(ncanda, derivatives=ncanda.parent / "out", val=1))
    assert names(data) == [f"sub-NCANDAS00{n}" for n in ("033_ses-baseline", "033_ses-followup1y", "118_ses-baseline")]
    assert data.problems["sub-NCANDAS00061_ses-baseline"] == "empty mask"
    assert "there is no t1.nii.gz" in data.problems["sub-NCANDAS00118_ses-followup10y"]


def test_a_folder_without_what_was_chosen_is_an_error(adni, tmp_path):
    ready(ADNIDataModule(adni, groups=["CN"], val=1))
    with pytest.raises(UserError, match=r"none of 1 chosen scans was preprocessed; sub-011S0002_ses-sc: .*was not"):
        ADNIDataModule(adni, groups=["AD"], val=1).setup("fit")
    with pytest.raises(UserError, match="is the study itself"):
        ADNIDataModule(adni, derivatives=adni)
    with pytest.raises(UserError, match="jobs: expected 1 or more"):
        ADNIDataModule(adni, jobs=0)


def test_a_table_of_paths_and_a_bids_data_set(tmp_path, put, done):
    put(tmp_path / "raw", "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    data = ready(BIDSDataModule(tmp_path / "raw", val=1))
    assert names(data) == ["sub-01_ses-a", "sub-02"] and data.root == tmp_path / "raw-cortexgen"
    lines = [f"{p},{p.name.split('_')[0]}\n" for p in sorted((tmp_path / "raw").rglob("*.nii.gz"))]
    (tmp_path / "scans.csv").write_text("path,subject\n" + "".join(lines))
    data = ready(StudyDataModule(tmp_path / "scans.csv", val=1))
    assert names(data) == ["sub-01", "sub-02"] and data.root == tmp_path / "scans-cortexgen"


@pytest.mark.filterwarnings("ignore:.*stand in several cohorts")
def test_two_studies_are_two_cohorts_each_in_its_folder(tmp_path, put, done):
    put(tmp_path / "one", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    put(tmp_path / "two", "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz")
    write_tsv(tmp_path / "two" / "participants.tsv", [{"participant_id": f"sub-0{k}", "age": 30 + k} for k in (1, 3)])
    data = ready(BIDSDataModule([tmp_path / "two", tmp_path / "one"], val=1))
    assert done == [["sub-01", "sub-02"], ["sub-01_ses-a", "sub-03"]]
    assert {s.name: (s.covariates["cohort"], s.covariates.get("age")) for s in data.scans} == {
        "sub-one01": ("one", None),
        "sub-02": ("one", None),
        "sub-two01_ses-a": ("two", 31),
        "sub-03": ("two", 33),
    }
    assert data.roots == [tmp_path / "one-cortexgen", tmp_path / "two-cortexgen"]
    assert [entry["Cohort"] for entry in data.contract()["preprocessing"]] == ["one", "two"]
    again = ready(BIDSDataModule([tmp_path / "one", tmp_path / "two"], derivatives=tmp_path / "out", val=1))
    assert names(again) == names(data) and (tmp_path / "out" / "two" / "sub-03").is_dir()


def test_what_one_study_lacks_another_keeps(tmp_path, put, done):
    for name in ("one", "two"):
        put(tmp_path / name, *(f"sub-0{k}/anat/sub-0{k}_T1w.nii.gz" for k in (1, 2)))
    roots = [tmp_path / "one", tmp_path / "two"]
    BIDSDataModule(roots).prepare_data()
    shutil.rmtree(tmp_path / "one-cortexgen" / "sub-01")
    with pytest.warns(UserWarning, match=r"1 scans of .*one are left out; sub-01: .*was not preprocessed"):
        data = BIDSDataModule(roots, val=1)
        data.setup("fit")
    assert names(data) == ["sub-one02", "sub-01", "sub-two02"] and list(data.problems) == ["one/sub-01"]
    assert len(data.side("train")) + len(data.side("val")) == 3


@pytest.fixture
def bids(tmp_path, put):
    """Three subjects with two sessions each."""
    put(tmp_path / "raw", *(f"sub-0{k}/ses-{s}/anat/sub-0{k}_ses-{s}_T1w.nii.gz" for k in (1, 2, 3) for s in (1, 2)))
    return tmp_path / "raw"


@pytest.mark.parametrize(
    "study, more, count",
    [
        ("ADNI", ("--data.where", "{group: [CN, MCI], age: '>75'}"), 3),
        ("NCANDA", ("--data.groups", "[N]", "--data.visits", "[baseline, followup_1y]"), 3),
        ("BIDS", ("--data.visits", "first"), 3),
    ],
)
def test_a_study_trains_through_the_command_line(study, more, count, request, verb, tmp_path):
    root = request.getfixturevalue(study.lower())
    out, options = tmp_path / "run", ("--data", f"{study}DataModule", "--data.root", root, "--data.test", 0, *more)
    cli = verb("fit", "register.yaml", *options, "--trainer.default_root_dir", out)
    assert cli.trainer.global_step > 0 and type(cli.datamodule).__name__ == f"{study}DataModule"
    assert len(cli.datamodule.scans) == count
    config = yaml.safe_load((out / "config.yaml").read_text())["data"]
    assert config["class_path"].endswith(f"{study}DataModule") and config["init_args"]["augmentation"] == "mirror"
    held = json.loads((cli.datamodule.root / "dataset_description.json").read_text())["GeneratedBy"]
    assert cli.model.contract["preprocessing"] == held


def test_steps_come_from_the_command_line(adni, verb, tmp_path):
    steps = "[{class_path: Normalize}]"
    options = ("--data", "ADNIDataModule", "--data.root", adni, "--data.steps", steps)
    cli = verb("fit", "register.yaml", *options, "--trainer.default_root_dir", tmp_path, "--trainer.fast_dev_run", "1")
    (made,) = cli.datamodule.contract()["preprocessing"]
    assert len(made["Steps"]) == 1


def test_after_a_training_the_scans_left_out_are_an_error(ncanda, verb, tmp_path):
    options = ("--data", "NCANDADataModule", "--data.root", ncanda)
    with pytest.raises(UserError, match=r"1 subject\(s\) left out, .*sub-NCANDAS00061_ses-baseline: empty mask"):
        verb("fit", "register.yaml", *options, "--data.test", 0, "--trainer.default_root_dir", tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
