"""A cohort goes on whatever happens to one scan, one process, or one machine."""

import os
import signal
import time
from pathlib import Path

import pytest

from cortexgen.errors import UserError
from cortexgen.preprocess import cohort as module
from cortexgen.preprocess.cohort import _collect, _workers


class Fake:
    """Stands for a scan."""

    def __init__(self, name):
        self.name = name


def row(scan):
    return {"participant_id": scan.name, "status": "ok", "pid": os.getpid()}


def dies_once(scan):
    """Its process is killed the first time that a scan called "fragile" is done."""
    if scan.name.startswith("fragile"):
        flag = Path(scan.name.split(":")[1])
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return row(scan)


def mixed(scan):
    if scan.name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if scan.name == "odd":
        raise RuntimeError("something\nunforeseen")
    return dies_once(scan)


def test_whatever_happens_to_one_scan_the_others_are_done(tmp_path):
    names = ["a", "b", "c", f"fragile:{tmp_path / 'flag'}", "deadly", "odd", "d", "e"]
    with _workers(2, None) as pool:
        rows = _collect([Fake(name) for name in names], mixed, pool)
    assert set(rows) == set(names) and (tmp_path / "flag").exists()
    failed = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    assert set(failed) == {"deadly", "odd"}
    assert "killed 3 times" in failed["deadly"] and failed["odd"] == "RuntimeError: something unforeseen"
    assert os.getpid() not in {row["pid"] for row in rows.values() if row["status"] == "ok"}


def test_64_scans_through_two_dask_workers_of_which_one_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, local_directory=str(tmp_path / "dask")) as cluster:
        scans = [Fake(f"s{k}") for k in range(63)] + [Fake(f"fragile:{tmp_path / 'flag'}")]
        with _workers(1, cluster.scheduler_address) as pool:
            rows = _collect(scans, dies_once, pool)
    assert (tmp_path / "flag").exists() and len(rows) == 64
    assert {r["status"] for r in rows.values()} == {"ok"}


def test_no_scheduler_and_no_dask_are_errors(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"tcp://127.0.0.1:9: no Dask scheduler"), _workers(1, "tcp://127.0.0.1:9"):
        pass
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UserError, match=r"cortexgen\[cluster\]"), _workers(1, "tcp://127.0.0.1:9"):
        pass
    assert module.ATTEMPTS == 3
