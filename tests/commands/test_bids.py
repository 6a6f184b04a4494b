"""`cortexgen bids`, called as BIDS Apps are."""

import json

import pytest

from cortexgen.atlas.template import load_template
from cortexgen.cli import run
from cortexgen.commands.bids import validate
from cortexgen.data.cohort import choose_scans, read_cohort
from cortexgen.errors import UserError
from cortexgen.io import write_volume
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
    with pytest.raises(UserError, match=r"^participants: sub-99 not in the cohort of 5"):
        bids(cohort, out, "participant", "--participant-label", "0001", "99", *QUICK)
    table.unlink()  # as if another process had written its own last
    bids(cohort, out, "group", *QUICK)
    assert names(table) == ["sub-0001", "sub-0003"]
    assert (out / "evaluated" / "evaluation.html").is_file()
    scans = read_cohort(cohort)
    assert choose_scans(scans, [], []) == scans and choose_scans(scans, ["0002"], []) == [scans[1]]
    with pytest.raises(UserError, match="participants: sub-99 not in the cohort"):
        choose_scans(scans, ["99"], [])
    with pytest.raises(UserError, match="sessions: no b among the 5"):
        choose_scans(scans, [], ["ses-b"])


def test_a_raw_data_set_is_preprocessed_first(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("cortexgen.commands.bids.register", lambda *args, **options: called.append((args, options)))
    raw, out, template = tmp_path / "raw", tmp_path / "out", load_template()
    coarse = template.to(template.grid.at_spacing(4.0))
    for place in ("01/ses-a", "01/ses-b", "02/ses-a"):
        name = place.replace("/", "_")
        write_volume(raw / f"sub-{place}" / "anat" / f"sub-{name}_T1w.nii.gz", coarse.image, coarse.grid)
    (raw / "dataset_description.json").write_text(json.dumps({"Name": "raw", "BIDSVersion": "1.9.0"}))
    shape = ("--skip", "strip,denoise,bias", "--spacing", 4)
    bids(raw, out, "participant", "--participant-label", "01", "--session-label", "a", *shape, *QUICK)
    assert names(out / "preprocessed" / "preprocess.tsv") == ["sub-01_ses-a"]
    ((args, options),) = called
    assert args == (out / "preprocessed", out / "registered")
    assert (options["participants"], options["sessions"]) == ("01", "a")
    with pytest.raises(UserError, match="participants: no 07; there are 01"):
        bids(raw, out, "participant", "--participant-label", "07", *shape, *QUICK)


def test_what_can_be_seen_to_be_wrong_is_said_first(cohort):
    with pytest.raises(UserError, match=r"is what is read; choose a new folder"):
        bids(cohort, cohort / "sub-0001" / "..", "participant")
    with pytest.raises(UserError, match=r"^--n_cpus: expected 1 or more, got 0$"):
        bids(cohort, cohort / "derivatives", "participant", "--n_cpus", 0)


def test_what_is_no_bids_is_refused_before_any_work(tmp_path, bids_errors):
    (tmp_path / "raw" / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"raw: not valid BIDS, .*such as [A-Z_]+.*; --skip-bids-validation"):
        bids(tmp_path / "raw", tmp_path / "out", "participant")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="nowhere: no such folder"):
        validate(tmp_path / "nowhere")


def test_without_the_validator_it_says_so(cohort, monkeypatch, capsys):
    monkeypatch.setattr("cortexgen.commands.bids.find_spec", lambda name: None)
    validate(cohort)
    assert "not validated" in capsys.readouterr().err
