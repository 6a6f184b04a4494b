"""What is read once and kept, and what is read again."""

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of noise in [0, 1]."""
    root = tmp_path / "set"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        image = rng.uniform(0, 1, (9, 10, 11)).astype(np.float32)
        image[0, 0, 0] = 1
        nib.save(nib.Nifti1Image(image, np.eye(4)), root / f"{name}.nii.gz")
    return root


def _store(folder: Path) -> Store:
    store = Store("s", BrainSet(folder, rescale=False), folder.parent / "work")
    store.fill()
    return store


def test_images_come_back_to_16_bits(folder: Path) -> None:
    store = _store(folder)
    for i, scan in enumerate(store.brains.scans):
        assert (store.image(i) - store.brains.read(scan).image).abs().max() <= 0.5 / 65535 + 1e-7
    assert store.names == ["sub-a", "sub-b", "sub-c", "sub-d"]


def test_a_second_run_reads_only_what_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _store(folder)
    read: list[str] = []
    original = BrainSet.read
    monkeypatch.setattr(BrainSet, "read", lambda self, scan: (read.append(scan.name), original(self, scan))[1])
    _store(folder)
    assert read == []
    ramp = np.linspace(0, 1, 990, dtype=np.float32).reshape(9, 10, 11)
    nib.save(nib.Nifti1Image(ramp, np.eye(4)), folder / "c.nii.gz")
    changed = _store(folder)
    assert read == ["sub-c"]
    assert changed.image(2).flatten().sort().values.numpy() == pytest.approx(ramp.ravel(), abs=1e-4)


def test_what_was_done_to_images_is_remembered(folder: Path) -> None:
    ramp = np.linspace(0, 1, 990, dtype=np.float32).reshape(9, 10, 11)
    nib.save(nib.Nifti1Image(ramp, np.diag([1.2, 1, 1, 1])), folder / "d.nii.gz")
    first, second = _store(folder), _store(folder)
    assert first.brains.notes
    assert first.brains.notes == second.brains.notes


def test_an_unreadable_file_is_left_out(folder: Path) -> None:
    (folder / "b.nii.gz").write_bytes(b"no image")
    store = _store(folder)
    assert store.names == ["sub-a", "sub-c", "sub-d"]
    assert "b.nii.gz" in store.brains.problems["sub-b"]


def test_measures_are_kept_until_their_key_changes(folder: Path) -> None:
    store, calls = _store(folder), []

    def compute(i: int) -> dict[str, object]:
        calls.append(i)
        if i == 2:
            raise UserError("nothing to see")
        return {"mean": float(store.image(i).mean()), "row": torch.arange(3)}

    first = store.measure("means", "1", compute)
    assert sorted(first) == [0, 1, 3]
    assert store.brains.problems == {"sub-c": "means: nothing to see"}
    again = store.measure("means", "1", compute)
    assert calls == [0, 1, 2, 3, 2]
    assert float(again[3]["mean"]) == float(first[3]["mean"])
    assert again[0]["row"].tolist() == [0, 1, 2]
    store.measure("means", "2", compute)
    assert calls[5:] == [0, 1, 2, 3]


def test_prepared_volumes_are_made_once_and_cleared(folder: Path) -> None:
    store, calls = _store(folder), []

    def half(image: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return image / 2

    volumes = store.prepared("half", "key", half)
    assert torch.allclose(volumes[1], store.image(1) / 2, atol=2e-5)
    assert torch.equal(volumes[1], store.prepared("half", "key", half)[1])
    assert len(calls) == 4
    with pytest.raises(IndexError):
        volumes[4]
    store.clear()
    assert not list(store.folder.rglob("*.npy"))
    store.fill()
    assert len(store.images()) == 4


def test_another_image_of_the_same_name_size_and_time_is_measured_anew(folder: Path) -> None:
    names, times = ["b.nii", "c.nii"], (1e9, 1e9)
    for name in names:
        nib.save(nib.load(folder / f"{name}.gz"), folder / name)
        (folder / f"{name}.gz").unlink()
        os.utime(folder / name, times)
    store = _store(folder)
    mean = [float(store.measure("means", "1", lambda i: {"mean": float(store.image(i).mean())})[2]["mean"])]
    shutil.copy2(folder / "b.nii", folder / "c.nii")
    store = _store(folder)
    mean += [float(v["mean"]) for v in store.measure("means", "1", lambda i: {"mean": store.image(i).mean()}).values()]
    assert mean[3] == pytest.approx(mean[2]) and mean[3] != mean[0]


def test_a_brain_with_a_problem_keeps_its_reason(folder: Path) -> None:
    shutil.copy(folder / "d.nii.gz", folder / "d.NII.GZ")
    (folder / "c.nii.gz").unlink()
    (folder / "c.nii.gz").symlink_to("nowhere")
    problems = _store(folder).brains.problems
    assert "2 files would be called sub-d" in problems["sub-d"] and "a link to nothing" in problems["sub-c"]
