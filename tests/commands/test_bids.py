"""`cortexgen bids`, called as BIDS Apps are."""

import json
import shutil

import pytest

from cortexgen.cli import run
from cortexgen.commands.bids import validate
from cortexgen.data.cohort import read_cohort
from cortexgen.errors import UserError
from cortexgen.io.bids import read_tsv

QUICK = ("--method", "affine", "--skip-bids-validation")


def bids(*args):
    run(["bids", *map(str, args)])


def names(table):
    return [row["participant_id"] for row in read_tsv(table)]


def test_participants_one_by_one_then_the_group(cohort, tmp_path):
    out, table = tmp_path / "out", tmp_path / "out" / "registered" / "registration.tsv"
    with pytest.raises(UserError, match="no participant at all; run the level participant first"):
        bids(cohort, out, "group", *QUICK)
    bids(cohort, out, "participant", "--participant-label", "0001", "sub-0003", *QUICK)
    assert names(table) == ["sub-0001", "sub-0003"] and not (out / "preprocessed").exists()
    table.unlink()  # as if another process had written its own last
    bids(cohort, out, "group", *QUICK)
    assert names(table) == ["sub-0001", "sub-0003"]
    assert (out / "evaluated" / "evaluation.html").is_file()
    with pytest.raises(UserError, match="participants: sub-99 not in the cohort"):
        run(["register", str(cohort), str(out / "registered"), "--participants", "99", "--method", "affine"])


def test_a_raw_data_set_is_preprocessed_first(cohort, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    for scan, place in zip(read_cohort(cohort)[:3], ["01/ses-a", "01/ses-b", "02/ses-a"], strict=True):
        folder = raw / f"sub-{place}" / "anat"
        folder.mkdir(parents=True)
        name = place.replace("/", "_")
        shutil.copy(scan.image, folder / f"sub-{name}_T1w.nii.gz")
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.9.0"}))
    shape = ("--skip", "strip,denoise,bias", "--spacing", 8)
    bids(raw, out, "participant", "--participant-label", "01", "--session-label", "a", *shape, *QUICK)
    for table in (out / "preprocessed" / "preprocess.tsv", out / "registered" / "registration.tsv"):
        assert names(table) == ["sub-01_ses-a"]
    with pytest.raises(UserError, match="participants: no 07; there are 01"):
        bids(raw, out, "participant", "--participant-label", "07", *shape, *QUICK)


def test_what_is_no_bids_is_refused_before_any_work(tmp_path, bids_errors):
    (tmp_path / "raw" / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"raw: not valid BIDS, .*such as .*; --skip-bids-validation"):
        bids(tmp_path / "raw", tmp_path / "out", "participant")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="nowhere: no such folder"):
        validate(tmp_path / "nowhere")


def test_without_the_validator_it_says_so(cohort, monkeypatch, capsys):
    monkeypatch.setattr("cortexgen.commands.bids.find_spec", lambda name: None)
    validate(cohort)
    assert "not validated" in capsys.readouterr().err
