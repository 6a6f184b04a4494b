"""What comes out of a cache is what decoding gives, whoever else uses it."""

import os
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from cortexgen.data.cache import Cache, DiskCache, MemoryCache, cache_folder, open_cache, remember
from cortexgen.errors import UserError


class Source:
    """Files whose decoding is counted; a file of N bytes is N voxels of its last byte."""

    def __init__(self, folder):
        self.folder, self.reads = folder, 0

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def decode(self, path):
        def read():
            self.reads += 1
            return volume(path)

        return read


def volume(path):
    content = Path(path).read_bytes()
    return torch.full((1, 1, 1, len(content)), content[-1] / 3).half()


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "data")


@pytest.mark.parametrize("kind, reads", [("memory", 1), ("disk", 1), ("none", 3), (True, 1), (False, 3)])
def test_a_file_is_decoded_once_and_gives_the_same_each_time(source, tmp_path, kind, reads):
    cache, file = open_cache(kind, tmp_path / "cache", "recipe"), source.write("a", b"xyz")
    assert file not in cache
    for _ in range(3):
        out = cache.get(file, source.decode(file))
        assert out.dtype == torch.float16 and torch.equal(out, volume(file))
    assert source.reads == reads and (file in cache) == (reads == 1)
    assert (tmp_path / "cache").exists() == (kind == "disk")


def test_kinds():
    assert isinstance(open_cache(True, Path(), 0), MemoryCache) and type(open_cache(False, Path(), 0)) is Cache


def test_entries_outlive_the_cache_and_are_told_apart(source, tmp_path):
    a, b, elsewhere = (
        source.write("a", b"xyz"),
        source.write("b", b"xyw"),
        Source(tmp_path / "other").write("a", b"abc"),
    )
    for file in (a, b, elsewhere):
        DiskCache(tmp_path / "cache", 1).get(file, source.decode(file))
    again = DiskCache(tmp_path / "cache", 1)
    for file in (a, b, elsewhere):
        assert torch.equal(again.get(file, source.decode(file)), volume(file))
    assert source.reads == 3
    other = DiskCache(tmp_path / "cache", {"grid": [2, 2, 2]})
    assert a not in other and a in again
    other.get(a, source.decode(a))
    assert source.reads == 4


@pytest.mark.parametrize("content, later", [(b"wwwww", False), (b"xyw", True)], ids=["size", "time"])
def test_a_file_that_changed_is_decoded_anew(source, tmp_path, content, later):
    cache, file = DiskCache(tmp_path / "cache", 1), source.write("a", b"xyz")
    os.utime(file, ns=(1_000_000_000, 1_000_000_000))
    cache.get(file, source.decode(file))
    file.write_bytes(content)
    os.utime(file, ns=(1_000_000_000, 1_000_000_000 + later))  # a nanosecond
    assert file not in cache
    assert torch.equal(cache.get(file, source.decode(file)), volume(file)) and source.reads == 2


@pytest.mark.parametrize("harm", [lambda b: b"", lambda b: b[:-2], lambda b: b"nothing of the kind"])
def test_a_damaged_entry_is_made_again(source, tmp_path, harm):
    cache, file = DiskCache(tmp_path / "cache", 1), source.write("a", b"xyz")
    cache.get(file, source.decode(file))
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(harm(entry.read_bytes()))
    for _ in range(2):
        assert torch.equal(cache.get(file, source.decode(file)), volume(file))
    assert source.reads == 2


def test_what_decoding_raises_is_raised_and_leaves_nothing(source, tmp_path):
    cache, missing = DiskCache(tmp_path / "cache", 1), tmp_path / "missing"
    file = source.write("a", b"xyz")

    def fail():
        raise UserError("truncated")

    for path in (missing, file):
        with pytest.raises(UserError, match="truncated"):
            cache.get(path, fail)
        assert path not in cache
    assert not list((tmp_path / "cache").iterdir())


def test_a_full_disk_costs_time_and_no_results(source, tmp_path, monkeypatch):
    cache, file = DiskCache(tmp_path / "cache", 1), source.write("a", b"xyz")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match="No space left on device; images are decoded each time"):
        assert torch.equal(cache.get(file, source.decode(file)), volume(file))
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_option(source):
    with pytest.raises(UserError, match=r"cache_dir: cannot make .*a/cache"):
        DiskCache(source.write("a", b"xyz") / "cache", 1)


def _hammer(folder, files, seed):
    cache, rng = DiskCache(folder, 1), np.random.default_rng(seed)
    for k in rng.integers(len(files), size=60):
        if rng.random() < 0.3:
            for entry in folder.glob("*.npy"):
                entry.unlink(missing_ok=True)
        if not torch.equal(cache.get(files[k], lambda k=k: volume(files[k])), volume(files[k])):
            return f"{files[k]} came out wrong"
    return None


def test_processes_that_write_and_delete_at_the_same_time_read_whole_entries(source, tmp_path):
    files = [source.write(name, bytes([k + 1]) * 200_000) for k, name in enumerate("abc")]
    (tmp_path / "cache").mkdir()
    with get_context("fork").Pool(4) as pool:
        wrong = pool.starmap(_hammer, [(tmp_path / "cache", files, seed) for seed in range(4)])
    assert wrong == [None] * 4
    assert not list((tmp_path / "cache").glob(".tmp-*"))


def test_cohorts_have_their_own_folder_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    a, b = cache_folder(Path("one/cohort")), cache_folder(Path("two/cohort"))
    assert a.parent == tmp_path / "cortexgen" and a.name.startswith("cohort-") and a != b
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(Path("one/cohort")) == tmp_path / "home/.cache/cortexgen" / a.name


def _summed(folder, log):
    """What one of several processes asks for; the work takes a while and leaves a line."""

    def make():
        time.sleep(0.5)
        with Path(log).open("a") as file:
            file.write("made\n")
        return {"sum": torch.arange(5.0), "about": {"n": 5, "names": ["a"]}}

    found = remember(folder, "sums", ["x", 1], make)
    assert torch.equal(found["sum"], torch.arange(5.0)) and found["about"] == {"n": 5, "names": ["a"]}


def test_one_process_does_the_work_and_the_others_wait(tmp_path):
    workers = [get_context("fork").Process(target=_summed, args=(tmp_path / "c", tmp_path / "log")) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_what_is_remembered_depends_on_its_key_and_survives_damage(tmp_path):
    made = []

    def make(value):
        def run():
            made.append(value)
            return {"x": torch.full((3,), float(value))}

        return run

    for key, value, expected in ((1, 1, 1), (1, 2, 1), (2, 3, 3), (1, 4, 1)):
        assert torch.equal(remember(tmp_path, "n", key, make(value))["x"], torch.full((3,), float(expected)))
    assert made == [1, 3]
    for file in tmp_path.glob("*.pt"):
        file.write_bytes(file.read_bytes()[:50])
    assert float(remember(tmp_path, "n", 1, make(5))["x"][0]) == 5
    assert not list(tmp_path.glob(".tmp*"))


def test_what_fails_is_not_remembered_nor_tried_twice(tmp_path):
    calls = []

    def make():
        calls.append(1)
        raise OSError("no such field")

    for k in (1, 2):
        with pytest.raises(OSError, match="no such field"):
            remember(tmp_path, "n", 1, make)
        assert len(calls) == k
    assert float(remember(tmp_path, "n", 1, lambda: {"x": torch.ones(())})["x"]) == 1


def test_without_a_folder_to_write_to_it_is_computed_with_a_warning(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="cache_dir: .*computed each time"):
        assert float(remember(tmp_path / "file", "n", 1, lambda: {"x": torch.ones(())})["x"]) == 1
