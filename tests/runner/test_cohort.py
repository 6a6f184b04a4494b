"""A cohort goes on whatever happens to one item, one process, or one machine."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.runner import cohort as module
from cortexgen.runner.cohort import Runner


def row(name):
    return {"participant_id": name, "status": "ok", "pid": os.getpid(), "threads": torch.get_num_threads()}


def dies_once(name, flag):
    """The process is killed the first time that "fragile" is done."""
    if name == "fragile" and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return row(name)


def mixed(name, flag):
    if name == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "odd":
        raise RuntimeError("something\nunforeseen")
    if name == "wrong":
        raise UserError("sub-wrong: no image")
    return dies_once(name, flag)


def full_disk(name):
    if name == "a":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return row(name)


def slow(name, folder):
    Path(folder, name).touch()
    time.sleep(0.5)
    return row(name)


def variable(name):
    return row(name) | {"found": os.environ.get("CORTEXGEN_TESTED")}


class Unpacked:
    """Work that counts how often it is unpacked in a process."""

    times = 0

    def __setstate__(self, state):
        Unpacked.times += 1

    def __reduce__(self):
        return Unpacked, (), {"weights": None}

    def __call__(self, name):
        return row(name) | {"unpacked": Unpacked.times}


def named(names):
    return {name: name for name in names}


def test_whatever_happens_to_one_item_the_others_are_done(tmp_path):
    names = ["a", "b", "c", "fragile", "deadly", "odd", "wrong", "d", "e"]
    rows = Runner(jobs=2).run(partial(mixed, flag=tmp_path / "flag"), named(names), "testing")
    assert list(rows) == names and (tmp_path / "flag").exists()
    assert rows.pop("odd") == {
        "participant_id": "odd",
        "status": "failed",
        "reason": "RuntimeError: something unforeseen",
    }
    assert rows.pop("wrong")["reason"] == "sub-wrong: no image"
    assert "killed 3 times" in rows["deadly"]["reason"] and rows.pop("deadly")["status"] == "failed"
    assert {found["status"] for found in rows.values()} == {"ok"}
    assert os.getpid() not in {found["pid"] for found in rows.values()}


def test_one_job_works_here_without_pickling_and_is_as_patient():
    seen = []

    def work(name):
        seen.append(name)
        return mixed(name, None) if name == "odd" else row(name)

    rows = Runner().run(work, named(["b", "odd", "a"]), "testing")
    assert list(rows) == seen == ["b", "odd", "a"] and rows["odd"]["reason"] == "RuntimeError: something unforeseen"
    assert rows["a"]["pid"] == os.getpid()


def test_processes_live_as_long_as_the_context_and_unpack_the_work_of_a_run_once():
    with Runner(isolated=True, threads=1) as runner:
        first = runner.run(Unpacked(), named("abc"), "testing")
        second = runner.run(Unpacked(), named("de"), "testing")
    rows = [*first.values(), *second.values()]
    assert len({found["pid"] for found in rows} - {os.getpid()}) == 1
    assert {found["threads"] for found in rows} == {1} and {found["unpacked"] for found in rows} == {1}


@pytest.mark.parametrize("runner", [Runner(), Runner(isolated=True)], ids=["here", "isolated"])
def test_a_full_disk_ends_the_run(runner):
    with pytest.raises(OSError) as caught:
        runner.run(full_disk, named("ab"), "testing")
    assert caught.value.errno == errno.ENOSPC


def test_processes_have_the_variables_of_the_one_that_begins_them(monkeypatch):
    monkeypatch.setenv("CORTEXGEN_TESTED", "before")
    for value in ("first", None, "second"):
        monkeypatch.delenv("CORTEXGEN_TESTED") if value is None else monkeypatch.setenv("CORTEXGEN_TESTED", value)
        rows = Runner(isolated=True).run(variable, named("a"), "testing")
        assert rows["a"]["found"] == value


def test_an_interruption_begins_nothing_more(tmp_path, monkeypatch):
    class Interrupted(module.Progress):
        def update(self, done=1, text=str):
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Progress", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Runner(isolated=True).run(partial(slow, folder=tmp_path), named("abcdef"), "testing")
    assert len(list(tmp_path.iterdir())) <= 2  # the first, and what was begun meanwhile


def test_what_a_user_can_put_right(monkeypatch):
    pytest.importorskip("distributed")
    for wrong, name in (({"jobs": 0}, "jobs"), ({"threads": 0}, "threads")):
        with pytest.raises(UserError, match=f"{name}: expected 1 or more, got 0"):
            Runner(**wrong)
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    with pytest.raises(UserError, match=r"tcp://127.0.0.1:9: no Dask scheduler"), Runner(scheduler="tcp://127.0.0.1:9"):
        pass
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(UserError, match=r"cortexgen\[cluster\]"), Runner(scheduler="tcp://127.0.0.1:9"):
        pass


def test_what_the_processes_do_ends_with_the_one_that_began_them(tmp_path):
    """However that ends: it is killed while two of its processes work."""
    code = "from functools import partial; from runner_items import lasting; from cortexgen.runner.cohort import Runner"
    code += "\nif __name__ == '__main__': Runner(2).run(partial(lasting, folder=FOLDER), {'a': 'a', 'b': 'b'}, 'x')"
    (tmp_path / "main.py").write_text(code.replace("FOLDER", repr(str(tmp_path))))
    (tmp_path / "runner_items.py").write_text(
        "import os, time, pathlib\n"
        "def lasting(name, folder):\n"
        "    pathlib.Path(folder, f'{name}.pid').write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "    return {'status': 'ok'}\n"
    )
    found = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen([sys.executable, tmp_path / "main.py"], env=os.environ | {"PYTHONPATH": found})
    wait_for(lambda: len([p for p in tmp_path.glob("*.pid") if p.read_text()]) == 2, 120)
    process.kill()
    process.wait()
    children = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children), 20)


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_lost_scheduler_is_no_items_fault():
    lost = Future()
    lost.set_exception(CancelledError())
    with pytest.raises(UserError, match="the scheduler was lost; call again to go on"):
        list(module._completed({lost: "a"}))


def test_nothing_is_begun_after_the_end():
    pool = module._Processes(1)
    started = pool.submit(os.kill, 0, 0).result  # a process that is there
    started()
    pool.closed = True
    with pytest.raises(BrokenProcessPool):
        pool._isolated(os._exit, 3)
    assert len(pool.started) == 2
    pool.shutdown()
