"""The record of a cohort's registrations, with results made by hand."""

import errno
import json
import os
import warnings

import pytest

from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.data.registered import KIND, kept_row, write_registrations
from cortexgen.errors import UserError, reason
from cortexgen.io.bids import derivative, read_tsv, transform
from cortexgen.io.output import record_path


@pytest.fixture
def scan(tmp_path):
    """Makes scans of a few bytes."""

    def make(name="sub-01", content="image", labels=None, **covariates):
        paths = {}
        for what, text in (("T1w", content), ("dseg", labels)):
            if text is not None:
                paths[what] = tmp_path / "in" / f"{name}_{what}.nii.gz"
                paths[what].parent.mkdir(exist_ok=True)
                paths[what].write_text(text)
        return Scan(name, name.split("_")[0], paths["T1w"], paths.get("dseg"), covariates)

    return make


class Registrations:
    """A run over a folder, which notes what fails as its callers do."""

    def __init__(self, root, split=None):
        self.root, self.split, self.failures = root, split or {}, {}

    def register(self, scan, make):
        try:
            return kept_row(self.root, scan, make, self.split.get(scan.subject))
        except Exception as error:
            self.failures[scan.name] = reason(error)

    def write_table(self, scans):
        write_registrations(self.root, scans, self.failures, self.split)


def files(root):
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


def maker(root, scan, text, spaces=("T",)):
    """Writes results of a scan and returns its row."""

    def make():
        for space in spaces:
            path = transform(root, scan.name, space, "T1w")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            derivative(root, scan.name, "field", space=space, desc="velocity").write_text(text)
        return {"status": "ok", "dice": 0.5}

    return make


def test_results_of_the_same_files_are_kept_and_of_others_redone(tmp_path, scan):
    out = tmp_path / "out"
    for labels in (None, "a"):
        given = scan(labels=labels)
        runs = Registrations(out)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if given.labels is None else "ignore")
            assert runs.register(given, maker(out, given, "first", ("T", "old")))["dice"] == 0.5
        assert runs.register(given, lambda: pytest.fail("done again"))["dice"] == 0.5 and not runs.failures
    mine = out / "sub-01" / "anat" / "sub-01_desc-mine_dseg.nii.gz"
    mine.write_text("the user's")
    for labels in ("a", "b"):
        other = scan(content="changed", labels=labels)
        with pytest.warns(UserWarning, match="sub-01: what was there was made of another image or labels"):
            Registrations(out).register(other, maker(out, other, "second"))
        left = files(out)
        assert "first" not in left.values() and not any("old" in name for name in left)
        assert list(left.values()).count("second") == 2 and mine.read_text() == "the user's"


def test_what_an_earlier_version_left_without_hashes_is_redone(tmp_path, scan):
    out, given = tmp_path / "out", scan()
    path = record_path(out, "sub-01", KIND)
    path.parent.mkdir(parents=True)
    for left in ('{"participant_id": "sub-01", "status": "ok", "split": "val"}', "{", "[]", '{"Row": null}', "\xff"):
        path.write_text(left, encoding="latin-1")
        with pytest.warns(UserWarning, match="registered anew"):
            assert Registrations(out).register(given, maker(out, given, "new")) is not None
        assert json.loads(path.read_text())["Row"]["dice"] == 0.5


ERRORS = [UserError("no\nbrain"), ValueError("bad\tvalue\n here"), RuntimeError(), MemoryError("much"), KeyError("k"),
          OSError(errno.EIO, "Input/output error", "x"), AssertionError("a"), RecursionError("deep")]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_whatever_goes_wrong_with_one_scan_stays_with_it(tmp_path, scan, error):
    out, bad, good = tmp_path / "out", scan("sub-02_ses-1"), scan("sub-01")

    def fails():
        maker(out, bad, "half")()
        raise error

    runs = Registrations(out, {"sub-01": "train", "sub-02": "test"})
    assert runs.register(bad, fails) is None
    assert runs.register(good, maker(out, good, "whole"))["split"] == "train"
    runs.write_table([good, bad])
    rows = {row["participant_id"]: row for row in read_tsv(out / "registration.tsv")}
    assert rows["sub-02_ses-1"]["status"].startswith("failed: ") and rows["sub-02_ses-1"]["split"] == "test"
    assert "\n" not in runs.failures["sub-02_ses-1"] and str(rows["sub-01"]["dice"]) == "0.5"
    expected = "no brain" if isinstance(error, UserError) else type(error).__name__
    assert expected in runs.failures["sub-02_ses-1"]
    assert not (out / "sub-02").exists() and [s.name for s in read_cohort(out, "*_field.nii*")] == ["sub-01"]
    assert [row["participant_id"] for row in read_tsv(out / "participants.tsv")] == ["sub-01"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_nobodys_and_stops_the_run(tmp_path, scan, number):
    def fails():
        raise OSError(number, "full", "out")

    with pytest.raises(OSError, match="full"):
        Registrations(tmp_path / "out").register(scan(), fails)
    with pytest.raises(KeyboardInterrupt):
        Registrations(tmp_path / "out").register(scan(), lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_a_source_that_cannot_be_read_is_a_failure_and_what_was_made_of_it_stays(tmp_path, scan):
    out, given = tmp_path / "out", scan()
    Registrations(out).register(given, maker(out, given, "first"))
    before = files(out)
    given.image.rename(tmp_path / "away")
    os.mkfifo(given.image)  # reading it would never end
    runs = Registrations(out)
    assert runs.register(given, lambda: pytest.fail("not to be read")) is None
    assert "no such file" in runs.failures["sub-01"] and files(out) == before
    runs.write_table([given])
    (row,) = read_tsv(out / "registration.tsv")
    assert row["status"].startswith("failed: ")
    given.image.unlink()
    (tmp_path / "away").rename(given.image)
    again = Registrations(out)
    assert again.register(given, lambda: pytest.fail("done again"))["dice"] == 0.5 and not again.failures


def test_names_that_files_cannot_have_and_scans_with_a_problem_are_failures(tmp_path, scan):
    runs = Registrations(tmp_path / "out")
    long = "sub-" + "a" * 240
    runs.register(Scan(long, long, scan().image), lambda: pytest.fail("not to be made"))
    runs.register(Scan("sub-02", "sub-02", scan().image, problem="2 files fit"), lambda: pytest.fail("not to be made"))
    assert "has 244 characters, expected 128 or fewer" in runs.failures[long]
    assert runs.failures["sub-02"] == "2 files fit"
    runs.write_table([])
    assert [row["participant_id"] for row in read_tsv(tmp_path / "out" / "registration.tsv")] == [long, "sub-02"]


def test_twins_on_a_disk_that_takes_upper_case_for_lower_case_do_not_replace_each_other(tmp_path, scan):
    out, upper, lower = tmp_path / "out", scan("sub-A"), scan("sub-a", content="other")
    Registrations(out).register(upper, maker(out, upper, "first"))
    (out / "sub-a").symlink_to(out / "sub-A")  # as such a disk would have it
    path = record_path(out, "sub-A", KIND)
    record_path(out, "sub-a", KIND).symlink_to(path)
    runs = Registrations(out)
    assert runs.register(lower, lambda: pytest.fail("not to be made")) is None
    assert "is of sub-A, not sub-a; rename" in runs.failures["sub-a"] and path.is_file()


def test_the_table_keeps_what_earlier_runs_registered(tmp_path, scan):
    out, first, second = tmp_path / "out", scan("sub-01", age=30.0), scan("sub-02_ses-1", age=50.0)
    for given in (first, second):
        runs = Registrations(out)
        runs.register(given, maker(out, given, "x"))
        runs.register(scan(f"{given.name}bad"), lambda: 1 / 0)
        runs.write_table([given])
    rows = {row["participant_id"]: row for row in read_tsv(out / "registration.tsv")}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"sub-01", "sub-02_ses-1"}
    assert set(rows) == {"sub-01", "sub-02_ses-1", "sub-01bad", "sub-02_ses-1bad"}
    scans = {s.name: s.covariates for s in read_cohort(out, "*_field.nii*")}
    assert {name: row["age"] for name, row in scans.items()} == {"sub-01": 30.0, "sub-02_ses-1": 50.0}
    runs = Registrations(out)  # one that had failed is done now
    runs.register(scan("sub-01bad"), maker(out, scan("sub-01bad"), "x"))
    runs.write_table([scan("sub-01bad")])
    rows = [row["participant_id"] for row in read_tsv(out / "registration.tsv") if row["status"] == "ok"]
    assert sorted(rows) == ["sub-01", "sub-01bad", "sub-02_ses-1"]
