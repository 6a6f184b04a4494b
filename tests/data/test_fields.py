"""The data module of stage 2 on velocities written by hand."""

import json
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cortexgen.atlas.template import load_template
from cortexgen.data.fields import FieldDataModule
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, write_field, write_volume
from cortexgen.io.bids import sidecar, write_tsv
from cortexgen.spatial import integrate, warp

GRID = Grid((9, 12, 11), np.array([[0, 0, 8, -40], [0, 8, 0, -50], [8, 0, 0, -30], [0, 0, 0, 1.0]]))
SUBJECTS = [f"sub-{k:02d}" for k in range(1, 7)]
SPLIT = dict(zip(SUBJECTS, ["train", "train", "val", "train", "test", "train"], strict=True))


def smooth(seed, channels, sigma, peak):
    values = gaussian_filter(np.random.default_rng(seed).standard_normal((channels, *GRID.shape)), (0, *[sigma] * 3))
    return torch.from_numpy(peak * values / np.abs(values).max()).float()


def field_of(root, name):
    return root / name / "anat" / f"{name}_space-Toy_desc-velocity_field.nii.gz"


def change(root, name, **content):
    path = sidecar(field_of(root, name))
    path.write_text(json.dumps(json.loads(path.read_text()) | content))


@pytest.fixture
def root(tmp_path):
    """Six velocities with sidecars, a split, ages, and their template in `template/`."""
    write_volume(tmp_path / "template" / "tpl-Toy_T1w.nii.gz", smooth(0, 1, 1, 1.0).abs(), GRID)
    digest = load_template(tmp_path / "template" / "tpl-Toy_T1w.nii.gz").hash
    info = {"Template": "Toy", "TemplateHash": digest, "IntegrationSteps": 7, "ImageGrid": GRID.to_dict()}
    for k, name in enumerate(SUBJECTS, start=1):
        write_field(field_of(tmp_path, name), smooth(k, 3, 2, 1.5), GRID)
        sidecar(field_of(tmp_path, name)).write_text(json.dumps(info))
    write_tsv(tmp_path / "registration.tsv", [{"participant_id": s, "split": side} for s, side in SPLIT.items()])
    write_tsv(tmp_path / "participants.tsv", [{"participant_id": s, "age": 20 + k} for k, s in enumerate(SUBJECTS)])
    return tmp_path


def module(root, **options):
    return FieldDataModule(root, **{"template": str(root / "template" / "tpl-Toy_T1w.nii.gz"), **options})


def ready(root, **options):
    data = module(root, **options)
    data.setup("fit")
    return data


def names(data, side):
    return [s.name for s in data.side(side)]


def test_fields_come_back_with_their_covariates(root):
    data = ready(root, batch_size=3, mirror=False)
    assert data.grid.matches(GRID) and not data.problems
    batches = list(data.train_dataloader())
    assert [len(b["name"]) for b in batches] == [3, 1]
    for batch in batches:
        for name, velocity, covariates in zip(batch["name"], batch["velocity"], batch["covariates"], strict=True):
            k = SUBJECTS.index(name)
            torch.testing.assert_close(velocity, smooth(k + 1, 3, 2, 1.5), atol=1e-5, rtol=0)
            assert covariates == {"age": 20.0 + k}
    assert [b["name"] for b in data.val_dataloader()] == [["sub-03"]]
    assert [b["name"] for b in data.test_dataloader()] == [["sub-05"]]


def test_stage_1s_split_holds_unless_another_is_asked_for(root):
    data = ready(root)
    assert {s: side for side in ("train", "val", "test") for s in names(data, side)} == SPLIT
    assert names(ready(root, val_subjects=["01"]), "val") == ["sub-01"]
    assert len(names(ready(root, val=3), "val")) == 3
    assert names(ready(root, val=3), "test") == []


def test_a_split_is_drawn_by_its_seed(root):
    (root / "registration.tsv").unlink()
    drawn = [tuple(ready(root, val=2, test=1, split_seed=seed).split.items()) for seed in range(4)]
    assert all(sorted(side for _, side in split)[:3] == ["test", "train", "train"] for split in drawn)
    assert drawn[0] == tuple(ready(root, val=2, test=1).split.items()) and len(set(drawn)) > 1


@pytest.mark.parametrize("rows", [None, [{"participant_id": s, "status": "ok"} for s in SUBJECTS]])
def test_without_a_recorded_split_one_is_drawn_and_said(root, rows):
    (root / "registration.tsv").unlink()
    if rows:
        write_tsv(root / "registration.tsv", rows)
    with pytest.warns(UserWarning, match=r"no split of stage 1 is recorded; a new one is drawn; .*--data.val"):
        data = ready(root)
    assert len(names(data, "val")) == 1 and len(names(data, "train")) == 5


SPLITS = {
    "half": ([("sub-01", "val"), ("sub-02", "train")], r"4 of 6 subjects have no side \(sub-03, sub-04, .*--data.val"),
    "two sides": ([*SPLIT.items(), ("sub-05_ses-2", "train")], r"sub-05 is on the sides test, train: .*--data.val"),
    "unknown": ([*SPLIT.items(), ("sub-03", "validation")], r"sub-03 is on the sides val, validation"),
    "none trained": ([(s, "val") for s in SUBJECTS], "none of its 6 subjects was trained on"),
}


@pytest.mark.parametrize("case", SPLITS)
def test_a_split_that_is_not_whole_is_refused_unless_another_is_asked_for(root, case):
    rows, message = SPLITS[case]
    write_tsv(root / "registration.tsv", [{"participant_id": name, "split": side} for name, side in rows])
    with pytest.raises(UserError, match=message):
        module(root).setup("fit")
    assert names(ready(root, val_subjects=["01"]), "val") == ["sub-01"]


def test_a_failed_session_does_not_take_its_subjects_side(root):
    """A row without a side, as older versions wrote it, or on the same one."""
    rows = [{"participant_id": name, "split": side} for name, side in SPLIT.items()]
    for more in ({"participant_id": "sub-05_ses-2", "status": "failed: no"}, rows[4]):
        write_tsv(root / "registration.tsv", [*rows, more])
        data = ready(root)
        assert {s: side for side in ("train", "val", "test") for s in names(data, side)} == SPLIT


def test_training_on_subjects_that_stage_1_held_out_is_said(root):
    with pytest.warns(UserWarning, match=r"1 subject\(s\) that stage 1 held out are trained on: sub-05"):
        ready(root, val_subjects=["03"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready(root, val_subjects=["03"], test_subjects=["05"])


def test_one_unreadable_field_is_left_out(root):
    field_of(root, "sub-02").write_bytes(b"nothing")
    sidecar(field_of(root, "sub-06")).unlink()
    data = ready(root)
    assert set(data.problems) == {"sub-02", "sub-06"}
    assert "sub-02_space-Toy" in data.problems["sub-02"] and "no sidecar" in data.problems["sub-06"]
    assert names(data, "train") == ["sub-01", "sub-04"]


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_damage_behind_the_header_is_found_before_training(root, cache):
    path = field_of(root, "sub-02")
    path.write_bytes(path.read_bytes()[:-600])
    broken = smooth(6, 3, 2, 1.5)
    broken[0, 4, 4, 4] = float("nan")
    write_field(field_of(root, "sub-06"), broken, GRID)
    data = ready(root, cache=cache, cache_dir=root / "cache")
    assert set(data.problems) == {"sub-02", "sub-06"}
    assert "truncated" in data.problems["sub-02"] and "NaN" in data.problems["sub-06"]
    assert names(data, "train") == ["sub-01", "sub-04"]


def test_every_field_damaged_is_an_error(root):
    for name in SUBJECTS:
        path = field_of(root, name)
        path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(UserError, match=r"none of its 6 fields can be read: .*truncated"):
        module(root).setup("fit")


@pytest.mark.parametrize("cache, reads", [("memory", 6), ("disk", 0), ("none", 12)])
def test_a_disk_cache_is_read_by_the_next_process(root, cache, reads, monkeypatch):
    """Fields are decoded once for all ranks, loading processes and runs, and none stays in memory."""
    ready(root, cache=cache, cache_dir=root / "cache")
    count = []
    monkeypatch.setattr("cortexgen.data.fields.read_field", lambda path: (count.append(path), read_field(path))[1])
    data = ready(root, cache=cache, cache_dir=root / "cache", num_workers=0)
    batches = {b["name"][0]: b["velocity"][0] for b in [*data.val_dataloader(), *data._loader(data.scans)]}
    assert len(count) == reads + 1 * (cache == "none")
    for k, name in enumerate(SUBJECTS, start=1):
        torch.testing.assert_close(batches[name], smooth(k, 3, 2, 1.5), atol=1e-5, rtol=0)


def test_large_cohorts_go_to_disk_unless_told_otherwise(root, monkeypatch):
    monkeypatch.setattr("cortexgen.data.fields.IN_MEMORY", 6 * 12 * 9 * 12 * 11)
    ready(root, cache_dir=root / "cache")
    assert not list(root.glob("cache/*.npy"))
    monkeypatch.setattr("cortexgen.data.fields.IN_MEMORY", 6 * 12 * 9 * 12 * 11 - 1)
    data = ready(root, cache_dir=root / "cache")
    assert len(list(root.glob("cache/*.npy"))) == 6
    (batch, *_) = data.train_dataloader()
    assert batch["velocity"].shape == (1, 3, *GRID.shape)


@pytest.mark.parametrize("content", ["{", '{"Template": "Toy"}'], ids=["broken", "incomplete"])
def test_one_bad_sidecar_is_left_out(root, content):
    sidecar(field_of(root, "sub-02")).write_text(content)
    data = ready(root)
    assert list(data.problems) == ["sub-02"] and sidecar(field_of(root, "sub-02")).name in data.problems["sub-02"]


def test_nothing_readable_is_an_error(root):
    for name in SUBJECTS:
        field_of(root, name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"none of its 6 fields can be read: .*sub-01"):
        module(root).setup("fit")


@pytest.mark.parametrize(
    "key, value", [("Template", "Other"), ("TemplateHash", "abc"), ("IntegrationSteps", 0), ("ImageGrid", {})]
)
def test_fields_that_do_not_belong_together_are_an_error_with_both_sides(root, key, value):
    old = json.loads(sidecar(field_of(root, "sub-01")).read_text())[key]
    change(root, "sub-04", **{key: value})
    with pytest.raises(UserError) as error:
        module(root).setup("fit")
    assert all(part in str(error.value) for part in (str(field_of(root, "sub-04")), key, str(value), str(old)))


def test_another_template_is_an_error_with_both_sides(root):
    old = json.loads(sidecar(field_of(root, "sub-01")).read_text())["TemplateHash"]
    for name in SUBJECTS:
        change(root, name, TemplateHash="f" * 64)
    with pytest.raises(UserError, match=rf"ffffffffffff.*{old[:12]}"):
        module(root).setup("fit")


def test_another_grid_is_an_error_with_both_sides(root):
    affine = GRID.affine.copy()
    affine[0, 3] += 4
    write_field(field_of(root, "sub-04"), smooth(4, 3, 2, 1.5), Grid(GRID.shape, affine))
    with pytest.raises(UserError, match=r"sub-04.*-36, -50, -30.*-40, -50, -30"):
        module(root).setup("fit")


def test_mirroring_needs_a_symmetric_grid(root):
    affine = GRID.affine.copy()
    affine[0, 3] += 4
    for k, name in enumerate(SUBJECTS, start=1):
        write_field(field_of(root, name), smooth(k, 3, 2, 1.5), Grid(GRID.shape, affine))
    with pytest.raises(UserError, match="symmetric about x = 0"):
        module(root).setup("fit")
    assert len(ready(root, mirror=False).training_fields()) == 4


def test_a_mirrored_velocity_warps_the_mirrored_template_to_the_mirrored_brain(root):
    data = ready(root)
    fields = data.training_fields()
    assert fields.shape == (8, 3, *GRID.shape)
    assert torch.equal(ready(root, mirror=False).training_fields(), fields[:4])
    template = smooth(0, 1, 1, 1.0).expand(4, -1, -1, -1, -1)
    brains = warp(template, integrate(fields[:4]))
    mirrored = warp(template.flip(4), integrate(fields[4:]))
    torch.testing.assert_close(mirrored, brains.flip(4), atol=1e-5, rtol=0)
    assert (brains - template).abs().max() > 0.1


def test_training_shows_fields_and_mirror_images_validation_fields_only(root):
    torch.manual_seed(0)
    data = ready(root)
    fields = data.training_fields()
    seen = set()
    for _ in range(12):
        for batch in data.train_dataloader():
            distances = (fields - batch["velocity"]).flatten(1).abs().amax(dim=1)
            assert distances.min() == 0
            seen.add(int(distances.argmin()))
    assert seen == set(range(8))
    for _ in range(6):
        (batch,) = data.val_dataloader()
        torch.testing.assert_close(batch["velocity"][0], smooth(3, 3, 2, 1.5), atol=1e-5, rtol=0)


def test_the_contract_is_plain_and_says_what_the_fields_depend_on(root):
    data = ready(root)
    contract = data.contract()
    assert json.loads(json.dumps(contract)) == contract
    assert Grid.from_dict(contract["grid"]).matches(GRID) and Grid.from_dict(contract["image_grid"]).matches(GRID)
    assert contract["integration_steps"] == 7
    assert contract["template"]["name"] == "Toy" and contract["template"]["hash"] == data.template.hash


def test_no_fields_are_an_error_that_names_folder_and_pattern(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        module(tmp_path / "nowhere").setup("fit")
    with pytest.raises(UserError, match="desc-velocity_field"):
        module(tmp_path).setup("fit")


def test_samples_can_be_sent_to_processes_that_are_not_forked(root):
    data = ready(root)
    data.trainer = SimpleNamespace(schedule=lambda step: step)  # can't be pickled
    sent = pickle.loads(pickle.dumps(data.val_dataloader().dataset))
    assert torch.equal(sent[0]["velocity"], data.velocity_of(data.side("val")[0])) and data.trainer is not None
