import errno
import json

import numpy as np
import pytest

from cortexgen.io import atomic, write_json, write_text
from cortexgen.io.atomic import write_array


def test_a_file_appears_whole_in_a_folder_that_is_made_for_it(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic(path) as temporary:
        temporary.write_text("half")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_an_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with atomic(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_ending_that_nibabel_goes_by(tmp_path):
    with atomic(tmp_path / "a.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.touch()


def test_json_keeps_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"z": [1, 2.5], "a": None})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"z": [1, 2.5], "a": None} and text.index('"z"') < text.index('"a"')


def test_json_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_in_writing_names_the_file(tmp_path):
    def fail():
        with atomic(tmp_path / "a.nii.gz"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left.*a\.nii\.gz") as found:
        fail()
    assert found.value.filename == str(tmp_path / "a.nii.gz")


def test_an_array_that_does_not_fit_on_the_disk_says_so(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    array = np.arange(10_000.0)
    write_array(tmp_path / "a.npy", array)
    assert np.array_equal(np.load(tmp_path / "a.npy"), array)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError) as found:
            write_array(tmp_path / "b.npy", array)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found.value.errno == errno.EFBIG and [p.name for p in tmp_path.iterdir()] == ["a.npy"]
