"""The data module of stage 1 on tiny cohorts, with a template in a file."""

import json
import pickle
import warnings
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import load_template
from cortexgen.data import loading
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.io import Grid, write_volume

SHAPE = (23, 28, 25)
AFFINE = np.array([[0, 0, 8, -96], [0, 8, 0, -130], [8, 0, 0, -70], [0, 0, 0, 1.0]])
GRID = Grid(SHAPE, AFFINE)
SUBJECTS = [f"sub-{k:02d}" for k in range(1, 7)]
pytestmark = pytest.mark.filterwarnings("ignore:.*is left out")


def brain(seed):
    """A bumpy ellipsoid with values up to about 900, `[1, D, H, W]`."""
    offsets = (np.indices(SHAPE) - np.reshape([11, 14, 12], (3, 1, 1, 1))) / np.reshape([8, 9, 7], (3, 1, 1, 1))
    bumps = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.5)
    inside = (offsets**2).sum(axis=0) + bumps < 1
    return torch.from_numpy(inside * (600 + 900 * bumps)).float()[None]


def classes_of(image):
    return (image > 0).long() + (image > 600).long()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Options for a template of three classes on the cohort's grid."""
    folder = tmp_path_factory.mktemp("template")
    image = brain(0)
    image = (image + image.flip(3)) / 2
    write_volume(folder / "tpl-Toy_T1w.nii.gz", image, GRID)
    write_volume(folder / "tpl-Toy_dseg.nii.gz", classes_of(image), GRID, np.uint8)
    return {"template": str(folder / "tpl-Toy_T1w.nii.gz"), "template_labels": folder / "tpl-Toy_dseg.nii.gz"}


@pytest.fixture
def root(tmp_path):
    """Six subjects with labels."""
    for k, name in enumerate(SUBJECTS, start=1):
        image = brain(k)
        write_volume(image_of(tmp_path, name), image, GRID)
        write_volume(tmp_path / name / "anat" / f"{name}_dseg.nii.gz", classes_of(image), GRID, np.uint8)
    return tmp_path


def image_of(root, name):
    return root / name / "anat" / f"{name}_T1w.nii.gz"


def module(root, template, **options):
    return RegistrationDataModule(root, **{**template, "val_subjects": ["05", "06"], **options})


def test_batches_of_both_sides(root, template):
    data = module(root, template, batch_size=2)
    data.setup("fit")
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    assert [len(b["name"]) for b in train] == [2, 2] and {n for b in train for n in b["name"]} == set(SUBJECTS[:4])
    assert [b["name"] for b in val] == [["sub-05"], ["sub-06"]]
    assert train[0]["moving"].shape == train[0]["fixed"].shape == (2, 1, *SHAPE)
    assert "fixed_labels" not in train[0]
    assert torch.equal(val[0]["fixed_labels"][0], classes_of(brain(5)))
    assert torch.equal(val[0]["moving_labels"][0], data.template.labels)
    assert [b["name"] for b in data.test_dataloader()] == [b["name"] for b in val]
    predictions = list(data.predict_dataloader())
    assert [data.scans[p["index"]].name for p in predictions] == SUBJECTS
    torch.testing.assert_close(predictions[4]["fixed"], val[0]["fixed"], atol=1e-3, rtol=0)


def seen_in_training(data, epochs):
    """(name, moving, fixed) of every sample of some epochs."""
    return [
        (name, moving, fixed)
        for _ in range(epochs)
        for batch in data.train_dataloader()
        for name, moving, fixed in zip(batch["name"], batch["moving"], batch["fixed"], strict=True)
    ]


@pytest.mark.parametrize("pairs", [0.0, 0.5, 1.0])
def test_a_share_of_the_pairs_is_from_subject_to_subject(root, template, pairs):
    torch.manual_seed(0)
    data = module(root, template, pairs=pairs)
    data.setup("fit")
    images = torch.stack([data.template.image, *(data.image_of(scan) for scan in data.side("train"))])
    moved = []
    for name, moving, fixed in seen_in_training(data, 20):
        distances = (images - moving).flatten(1).abs().amax(dim=1)
        assert float(distances.min()) == 0 and torch.equal(fixed, images[SUBJECTS.index(name) + 1])
        moved.append((name, int(distances.argmin())))
    share = np.mean([index > 0 for _, index in moved])
    assert share == pytest.approx(pairs, abs=0.15 if 0 < pairs < 1 else 0)
    if pairs == 1:
        assert {index for _, index in moved} == {1, 2, 3, 4}
        assert len(set(moved)) > 12  # nearly all of the 16 pairs
    assert all(torch.equal(batch["moving"][0], images[0]) for batch in data.val_dataloader())


def test_training_shows_pairs_and_their_mirror_images_validation_pairs_only(root, template):
    torch.manual_seed(0)
    data = module(root, template, augmentation="mirror")
    data.setup("fit")
    images = {scan.name: data.image_of(scan) for scan in data.scans}
    turned = []
    for name, moving, fixed in seen_in_training(data, 8):
        turned.append(torch.equal(fixed, images[name].flip(3)))
        assert turned[-1] or torch.equal(fixed, images[name])
        assert torch.equal(moving, data.template.image.flip(3) if turned[-1] else data.template.image)
    assert 8 <= sum(turned) <= 24
    for _ in range(8):
        assert all(torch.equal(b["fixed"][0], images[b["name"][0]]) for b in data.val_dataloader())


def test_the_split_is_drawn_by_its_seed_and_shares(root, template):
    def split(**options):
        data = module(root, template, val_subjects=None, cache="none", **options)
        data.setup("fit")
        return data.split

    drawn = [split(val=2, test=1, split_seed=seed) for seed in range(4)]
    for sides in drawn:
        assert sorted(sides.values()) == ["test", "train", "train", "train", "val", "val"]
    assert drawn[0] == split(val=2, test=1) and len({tuple(sides.items()) for sides in drawn}) > 1
    assert split(val=1, test_subjects=["02"])["sub-02"] == "test"


@pytest.mark.parametrize(("only", "names"), [("train", SUBJECTS[:4]), ("val", SUBJECTS[4:]), (None, SUBJECTS)])
def test_one_side_alone_is_predicted(root, template, only, names):
    data = module(root, template, only=only)
    data.setup("predict")
    assert [data.scans[p["index"]].name for p in data.predict_dataloader()] == names


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_images_are_scaled_by_their_robust_maximum(root, template, cache):
    data = module(root, template, cache=cache, cache_dir=root / "cache")
    data.setup("fit")
    expected = brain(1).numpy()
    expected = np.clip(expected / np.percentile(expected[expected > 0], 99.5), 0, 1)
    for _ in range(2):  # from the file, from the cache
        image = data.image_of(data.scans[0])
        assert image.dtype == torch.float32
        np.testing.assert_allclose(image, expected, atol=5e-4)  # float16 in memory


@pytest.mark.parametrize("workers", [0, 2])
def test_all_caches_give_the_same_samples(root, template, workers):
    def samples(cache):
        torch.manual_seed(0)
        options = {"augmentation": "scanner", "pairs": 0.5, "spacing": 12.0, "num_workers": workers}
        data = module(root, template, cache=cache, cache_dir=root / "cache", **options)
        data.setup("fit")
        return [*data.train_dataloader(), *data.val_dataloader()]

    expected = samples("none")
    for other in (samples("memory"), samples("disk"), samples("disk")):  # the second time from what the first one left
        for a, b in zip(other, expected, strict=True):
            assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if k != "name")


def test_a_cached_cohort_is_not_decoded_again_but_a_changed_image_is(root, template, monkeypatch):
    def decoded(**options):
        seen = []
        monkeypatch.setattr(loading, "load_scan", lambda scan, *grids: seen.append(scan.name) or load(scan, *grids))
        data = module(root, template, cache="disk", cache_dir=root / "cache", **options)
        data.setup("fit")
        return seen, data

    load = loading.load_scan
    assert len(decoded()[0]) == 6 and not decoded()[0]
    assert len(decoded(spacing=12.0)[0]) == 6
    write_volume(image_of(root, "sub-02"), brain(9), GRID)
    seen, data = decoded()
    assert seen == ["sub-02"]
    torch.testing.assert_close(data.image_of(data.scans[1]), normalize(brain(9)), atol=5e-4, rtol=0)


def test_what_is_wrong_with_labels_is_found_again_when_the_image_is_cached(root, template):
    write_volume(root / "sub-05/anat/sub-05_dseg.nii.gz", 2 * classes_of(brain(5)), GRID, np.uint8)
    for _ in range(2):
        data = module(root, template, cache="disk", cache_dir=root / "cache")
        data.setup("fit")
        assert list(data.problems) == ["sub-05"] and "3 classes" in data.problems["sub-05"]


def test_processes_of_one_training_share_the_work_of_filling_the_cache(root, template, monkeypatch):
    def order(rank):
        seen = []
        monkeypatch.setattr(loading, "load_scan", lambda scan, *grids: seen.append(scan.name) or load(scan, *grids))
        data = module(root, template, cache="memory")
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3)
        data.setup("fit")
        return seen

    load = loading.load_scan
    orders = [order(rank) for rank in range(3)]
    assert [o[:2] for o in orders] == [SUBJECTS[:2], SUBJECTS[2:4], SUBJECTS[4:]]
    assert all(sorted(o) == SUBJECTS for o in orders)


def test_samples_can_be_sent_to_processes_that_are_not_forked(root, template):
    data = module(root, template)
    data.setup("fit")
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, schedule=lambda step: step)  # can't be pickled
    sent = pickle.loads(pickle.dumps(data.val_dataloader().dataset))
    assert torch.equal(sent[1]["fixed_labels"], classes_of(brain(6))) and data.trainer.world_size == 1


def test_normalize_ignores_units_and_the_size_of_the_background():
    image = brain(1) - 5 * (brain(1) == 0)
    wide = torch.nn.functional.pad(image, (20, 20))
    torch.testing.assert_close(normalize(1e-3 * image), normalize(image))
    torch.testing.assert_close(normalize(wide)[..., 20:-20], normalize(image))
    assert normalize(image).min() == 0 and normalize(image).max() == 1


@pytest.mark.parametrize("spacing", [6.0, 12.0])
def test_spacing_moves_images_template_and_labels_to_one_grid(root, template, spacing):
    data = module(root, template, spacing=spacing)
    data.setup("fit")
    (batch,) = [b for b in data.val_dataloader() if b["name"] == ["sub-05"]]
    assert data.grid.shape == GRID.at_spacing(spacing).shape != SHAPE
    for key in ("moving", "fixed", "moving_labels", "fixed_labels"):
        assert batch[key].shape == (1, 1, *data.grid.shape)
    inside, labels = batch["fixed"][0] > 0.3, batch["fixed_labels"][0] > 0
    assert 2 * (inside & labels).sum() / (inside.sum() + labels.sum()) > 0.9
    volume = labels.sum() * data.grid.voxel_volume
    assert volume == pytest.approx((brain(5) > 0).sum().item() * GRID.voxel_volume, rel=0.15)


def test_crop_to_the_brain_is_odd_and_symmetric_and_holds_the_brain(root, template):
    data = module(root, template, spacing=4.0, crop="brain")
    data.setup("fit")
    assert all(n % 2 for n in data.grid.shape) and data.grid.is_symmetric()
    assert np.prod(data.grid.shape) < 0.8 * np.prod(GRID.at_spacing(4.0).shape)
    whole = load_template(*template.values()).to(GRID.at_spacing(4.0))
    assert data.template.mask.sum() == whole.mask.sum()
    edges = [data.template.mask.movedim(1 + axis, 0)[[0, -1]] for axis in range(3)]
    assert not any(edge.any() for edge in edges)


@pytest.mark.parametrize("width", [24, 25])
def test_the_brains_box_in_a_symmetric_grid_is_symmetric(template, width):
    affine = AFFINE.copy()
    affine[0, 3] = -4.0 * (width - 1)
    grid = Grid((23, 28, width), affine)
    assert grid.is_symmetric()
    box = brain_box(load_template(*template.values()).to(grid))
    assert box.is_symmetric() and box.shape[2] < width


def test_crop_to_a_window_is_central_and_pads(root, template):
    data = module(root, template, crop=[32, 20, 20])
    data.setup("fit")
    image = data.image_of(data.scans[0])
    assert image.shape == (1, 32, 20, 20) and data.grid.matches(GRID.window((32, 20, 20)))
    torch.testing.assert_close(image[:, 5:28], normalize(brain(1))[:, :, 4:24, 2:22], atol=1e-3, rtol=0)
    assert not image[:, :4].any() and not image[:, 28:].any()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def poison(path):
    image = nib.load(path)
    array = image.get_fdata()
    array[3, 3, 3] = np.nan
    nib.save(nib.Nifti1Image(array, image.affine), path)


def move(path):
    affine = AFFINE.copy()
    affine[0, 3] += 1
    write_volume(path, brain(2), Grid(SHAPE, affine))


def empty(path):
    image = nib.load(path)
    nib.save(nib.Nifti1Image(-image.get_fdata(), image.affine), path)


FAULTS = [(truncate, "truncated"), (poison, "NaN"), (move, "its grid is"), (empty, "no voxel is above zero")]


@pytest.mark.parametrize("fault, text", FAULTS, ids=[f.__name__ for f, _ in FAULTS])
def test_one_bad_image_is_left_out_with_its_reason_and_the_others_load(root, template, fault, text):
    fault(image_of(root, "sub-02"))
    data = module(root, template)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")
    assert [str(w.message) for w in caught if "sub-02 is left out" in str(w.message) and text in str(w.message)]
    assert list(data.problems) == ["sub-02"] and text in data.problems["sub-02"]
    assert str(image_of(root, "sub-02")) in data.problems["sub-02"]
    assert {b["name"][0] for b in data.train_dataloader()} == {"sub-01", "sub-03", "sub-04"}
    predictions = list(data.predict_dataloader())
    assert len(predictions) == 6 and text in predictions[1]["error"] and "fixed" in predictions[5]


@pytest.mark.parametrize("stage", ["predict", "validate"])
def test_a_bad_image_stops_neither_prediction_nor_validation(root, template, stage):
    truncate(image_of(root, "sub-05"))
    data = module(root, template)
    data.setup(stage)
    if stage == "predict":
        predictions = list(data.predict_dataloader())
        assert "truncated" in predictions[4]["error"] and sum("fixed" in p for p in predictions) == 5
    else:
        assert [b["name"] for b in data.val_dataloader()] == [["sub-06"]]


def test_the_grid_of_most_is_the_cohorts(root, template):
    affine = AFFINE.copy()
    affine[1, 3] += 2
    for k in (1, 2):
        write_volume(image_of(root, SUBJECTS[k - 1]), brain(k), Grid(SHAPE, affine))
    data = module(root, template)
    data.setup("fit")
    assert data.native.matches(GRID) and set(data.problems) == {"sub-01", "sub-02"}
    reason = data.problems["sub-01"]
    assert "-96, -128, -70" in reason and "-96, -130, -70" in reason  # both sides


def test_nothing_readable_is_an_error(root, template):
    for name in SUBJECTS:
        image_of(root, name).write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"none of its 6 images can be read: .*sub-01_T1w"):
        module(root, template).setup("fit")


def test_nobody_readable_to_train_on_is_an_error(root, template):
    for name in SUBJECTS[:4]:
        truncate(image_of(root, name))
    with pytest.raises(UserError, match="no readable subject is left to train on"):
        module(root, template).setup("fit")


def test_labels_that_the_template_does_not_have_are_an_error(root, template):
    write_volume(root / "sub-05/anat/sub-05_dseg.nii.gz", 2 * classes_of(brain(5)), GRID, np.uint8)
    data = module(root, template)
    data.setup("fit")
    with pytest.raises(UserError, match=r"sub-05_dseg\.nii\.gz: label 4 .* 3 classes"):
        data.reader.labels(next(s for s in data.scans if s.name == "sub-05"))


def test_mirroring_needs_a_symmetric_grid(root, template):
    with pytest.raises(UserError, match="symmetric about x = 0"):
        module(root, template, augmentation="mirror", crop=[20, 20, 20]).setup("fit")
    module(root, template, augmentation="mirror").setup("fit")


def test_quarter_turns_need_square_slices(root, template):
    with pytest.raises(UserError, match=r"augmentation: paper .* 23 x 28 x 25 voxels .* set a crop"):
        module(root, template, augmentation="paper").setup("fit")
    module(root, template, augmentation="paper", crop=[16, 20, 20]).setup("fit")


@pytest.mark.parametrize("options", [{"crop": [20, 20]}, {"spacing": 0.0}, {"spacing": -2.0}])
def test_impossible_options_are_errors_that_name_them(root, template, options):
    with pytest.raises(UserError, match=f"{next(iter(options))}: "):
        module(root, template, **options).setup("fit")


def test_the_contract_is_plain_and_names_grid_template_and_preprocessing(root, template):
    made = [{"Name": "cortexgen", "Version": "0"}]
    (root / "dataset_description.json").write_text(json.dumps({"GeneratedBy": made}))
    data = module(root, template, spacing=12.0)
    data.setup("fit")
    contract = data.contract()
    assert json.loads(json.dumps(contract)) == contract
    assert Grid.from_dict(contract["grid"]).matches(data.grid)
    assert contract["template"] == {"name": "Toy", "hash": data.template.hash, "classes": list(data.template.classes)}
    assert contract["preprocessing"] == made
