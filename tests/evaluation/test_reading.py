import shutil
import tracemalloc
import weakref
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.evaluation.reading import Brain, BrainSet, find_images
from cortexgen.evaluation.store import Store
from cortexgen.io import Grid, read_volume
from cortexgen.io.bids import write_tsv

SHAPE = (12, 14, 10)  # of files: x, y, z
RAS = np.diag([2.0, 2, 2, 1])
RAS[:3, 3] = (-11, -13, -9)


def blob(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A smooth brain in [0, 1] with air, exactly 0, around it."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    distance = np.linalg.norm(np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")), axis=0)
    brain = np.where(distance < 0.9, 2 + noise / np.abs(noise).max(), 0)
    return (brain / brain.max()).astype(np.float32)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = RAS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def folder(root: Path, n: int = 3, labelled: bool = False) -> Path:
    for k in range(n):
        save(root / f"sub-{k:02d}_T1w.nii.gz", blob(k))
        if labelled:
            save(root / f"sub-{k:02d}_dseg.nii.gz", np.rint(3 * blob(k)).astype(np.uint8))
    return root


def read(brains: BrainSet) -> list[Brain]:
    """Those that can be read, as an evaluation finds them."""
    with TemporaryDirectory() as work:
        store = Store("set", brains, Path(work))
        store.fill()
    return [brains.read(scan) for scan in brains.scans if scan.name in store.names]


def names(brains: BrainSet) -> list[str]:
    return [brain.name for brain in read(brains)]


def test_a_folder_gives_each_image_in_memory_order_with_its_labels(tmp_path):
    brains = BrainSet(folder(tmp_path, labelled=True))
    seen = read(brains)
    assert [b.name for b in seen] == ["sub-00", "sub-01", "sub-02"] and len(brains) == 3
    for k, (_, image, labels, grid, _) in enumerate(seen):
        file = blob(k)
        expected = np.clip(file / np.quantile(file[file > 0], 0.995), 0, 1)
        assert image.shape == (1, *SHAPE[::-1]) == labels.shape and image.dtype == torch.float32
        np.testing.assert_allclose(image[0], expected.transpose(2, 1, 0), atol=1e-4)
        np.testing.assert_array_equal(labels[0], np.rint(3 * file).transpose(2, 1, 0))
        assert grid is brains.grid and grid.codes == "RAS"
    assert brains.problems == {} and brains.notes == []


def test_a_data_set_is_read_with_sessions_covariates_and_its_table_of_classes(tmp_path):
    for name in ("sub-01/ses-a", "sub-01/ses-b", "sub-02"):
        stem = name.replace("/", "_")
        save(tmp_path / name / "anat" / f"{stem}_T1w.nii.gz", blob(1))
        save(tmp_path / name / "anat" / f"{stem}_dseg.nii.gz", (blob(1) > 0).astype(np.uint8) * 5)
    write_tsv(tmp_path / "participants.tsv", [{"participant_id": "sub-01", "age": 30}])
    write_tsv(tmp_path / "dseg.tsv", [{"index": 5, "name": "everything"}])
    brains = BrainSet(tmp_path)
    assert names(brains) == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"] and brains.classes == {5: "everything"}
    assert [s.covariates.get("age") for s in brains.scans] == [30, 30, None] and not brains.problems


def test_what_the_library_writes_is_read(cohort):
    brains = BrainSet(cohort)
    seen = read(brains)
    assert len(seen) == 5 and not brains.problems and brains.classes[14] == "Hippocampus"
    assert all(b.labels is not None and float(b.image.max()) == 1 for b in seen)
    first = read_volume(brains.scans[0].labels, labels=True)[0]
    assert torch.equal(seen[0].labels, first)


def test_the_real_brains_are_read(real_brains):
    brains = BrainSet(real_brains)
    first = brains.read(brains.scans[0])
    brains.recall(brains.scans[0], first.treatments)
    assert len(brains) == 56 and len(brains.classes) == 18 and first.image.shape == (1, 95, 117, 99)
    assert "1 of 56 brains (sub-01): intensities up to 255" in brains.notes[0] and float(first.image.max()) == 1


@pytest.mark.parametrize("name", ["sub-01_dseg.nii.gz", "sub-01_T1w_synthseg.nii", "sub-01_seg.nii.gz"])
def test_label_maps_of_another_folder_are_found_by_name(tmp_path, name):
    folder(tmp_path / "images", labelled=True)
    save(tmp_path / "maps" / name, np.full(SHAPE, 1, np.uint8) + (blob(1) > 0))
    brains = BrainSet(tmp_path / "images", labels_from=tmp_path / "maps")
    seen = {b.name: b.labels for b in read(brains)}
    assert seen["sub-00"] is None and seen["sub-02"] is None and set(seen["sub-01"].unique().tolist()) == {1, 2}
    assert f"2 of 3 brains (sub-00, sub-02): no label map in {tmp_path / 'maps'}" in brains.notes[0]


def test_names_that_are_no_bids_names_are_matched_too(tmp_path):
    save(tmp_path / "images" / "brain 1.nii", blob(1))
    save(tmp_path / "images" / "brain 12.nii", blob(2))
    save(tmp_path / "maps" / "brain 1_synthseg.nii", np.rint(blob(1)))
    save(tmp_path / "maps" / "brain 12_synthseg.nii", np.rint(2 * blob(2)))
    brains = BrainSet(tmp_path / "images", tmp_path / "maps")
    assert [int(b.labels.max()) for b in read(brains)] == [1, 2]
    shutil.move(tmp_path / "maps" / "brain 1_synthseg.nii", tmp_path / "maps" / "other.nii")
    (tmp_path / "maps" / "brain 12_synthseg.nii").unlink()
    with pytest.raises(UserError, match=rf"{tmp_path}/maps: none of its 1 label maps has the name of an image"):
        BrainSet(tmp_path / "images", tmp_path / "maps")


def test_files_that_are_no_brains_are_not_taken_for_them(tmp_path):
    folder(tmp_path, 1, labelled=True)
    (tmp_path / "._sub-00_T1w.nii.gz").write_bytes(b"from another file system")
    save(tmp_path / "sub-00_mask.nii.gz", blob())
    assert [s.image.name for s in find_images(tmp_path)] == ["sub-00_T1w.nii.gz"]
    with pytest.raises(
        UserError, match=r"3 files would be called sub-00 \(sub-00_T1w.nii.gz, sub-00_run-1_T1w.nii.gz, "
    ):
        save(tmp_path / "sub-00_run-1_T1w.nii.gz", blob())
        save(tmp_path / "sub-00_run-2_T1w.nii.gz", blob())
        find_images(tmp_path)


def test_a_folder_without_images_and_no_folder_are_errors(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=rf"{path}: no"):
            BrainSet(path)


def test_bad_files_in_the_middle_are_told_and_the_others_go_on(tmp_path):
    folder(tmp_path, 2, labelled=True)
    whole = (tmp_path / "sub-01_T1w.nii.gz").read_bytes()
    bad = {
        "sub-10": (whole[: len(whole) // 2], "truncated"),
        "sub-11": (b"<html>not found</html>", "not a readable NIfTI"),
        "sub-12": (b"", "not a readable NIfTI"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / f"{name}_T1w.nii.gz").write_bytes(content)
    arrays = {
        "sub-13": (np.full(SHAPE, np.nan, np.float32), "NaN"),
        "sub-14": (np.zeros(SHAPE, np.float32), "every voxel is 0"),
        "sub-15": (np.zeros((*SHAPE, 7), np.float32), "expected a 3D volume"),
        "sub-16": (np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "expected one number a voxel"),
        "sub-17": (blob().astype(np.complex64), "expected one number a voxel"),
    }
    for name, (array, _) in arrays.items():
        save(tmp_path / f"{name}_T1w.nii.gz", array)
    save(tmp_path / "sub-18_T1w.nii.gz", blob(), None)
    save(tmp_path / "sub-19_T1w.nii.gz", blob(19))

    brains = BrainSet(tmp_path)
    assert names(brains) == ["sub-00", "sub-01", "sub-19"] == names(brains) and len(brains) == 3
    reasons = {name: text for name, (_, text) in (bad | arrays).items()} | {"sub-18": "no orientation"}
    assert set(brains.problems) == set(reasons)
    for name, text in reasons.items():
        assert text in brains.problems[name] and str(tmp_path / f"{name}_T1w.nii.gz") in brains.problems[name]
        assert "\n" not in brains.problems[name]


def test_a_set_whose_first_files_are_bad_has_the_grid_of_the_next(tmp_path):
    folder(tmp_path, 2)
    (tmp_path / "sub-00_T1w.nii.gz").write_bytes(b"")
    brains = BrainSet(tmp_path)
    assert names(brains) == ["sub-01"] and "sub-00" in brains.problems
    (tmp_path / "sub-01_T1w.nii.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of its 2 images can be read; the first: .*sub-00_T1w"):
        BrainSet(tmp_path)


@pytest.mark.parametrize("known", [{1: "a", 2: "b"}, None])
def test_unknown_labels_name_file_and_index(tmp_path, known):
    folder(tmp_path, 3, labelled=True)
    wrong = np.zeros(SHAPE, np.int16)
    wrong[3, 3, 3] = 99 if known else -4
    save(tmp_path / "sub-01_dseg.nii.gz", wrong)
    for k in (0, 2):
        save(tmp_path / f"sub-{k:02d}_dseg.nii.gz", (blob() > 0).astype(np.uint8))
    brains = BrainSet(tmp_path, classes=known)
    assert names(brains) == ["sub-00", "sub-02"]
    assert f"sub-01_dseg.nii.gz: unknown label {99 if known else -4}" in brains.problems["sub-01"]


def test_labels_with_fractions_are_a_problem_of_that_brain(tmp_path):
    folder(tmp_path, 2, labelled=True)
    save(tmp_path / "sub-00_dseg.nii.gz", blob())
    brains = BrainSet(tmp_path)
    assert names(brains) == ["sub-01"] and "expected whole numbers" in brains.problems["sub-00"]


def turned(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same volume stored as LPI with its axes exchanged."""
    image = nib.Nifti1Image(array, affine)
    to = nib.orientations.axcodes2ornt("IPL")
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), to))
    return np.asarray(image.dataobj), image.affine


def test_the_same_grid_stored_otherwise_is_not_resampled(tmp_path):
    folder(tmp_path / "real", 2)
    real = BrainSet(tmp_path / "real")
    for k in range(2):
        save(tmp_path / "fake" / f"sub-{k:02d}_T1w.nii", *turned(blob(k), RAS))
    fake = BrainSet(tmp_path / "fake", grid=real.grid)
    for a, b in zip(read(real), read(fake), strict=True):
        assert torch.equal(a.image, b.image)
    assert fake.notes == []


def ball(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A bell around (2, 0, 0) mm, 0 far from it."""
    voxels = np.stack([*np.indices(shape), np.ones(shape)])
    x, y, z, _ = np.tensordot(affine, voxels, 1)
    bell = np.exp(-((x - 2) ** 2 + y**2 + z**2) / (2 * 3.5**2))
    return np.where(bell > 0.02, bell, 0).astype(np.float32)


def test_another_grid_is_resampled_and_said(tmp_path):
    here = ball(RAS, SHAPE).transpose(2, 1, 0)
    fine = np.eye(4)
    fine[:3, :3] = Rotation.from_euler("z", 25, degrees=True).as_matrix()
    fine[:3, 3] = fine[:3, :3] @ (-20, -22, -18)
    array = ball(fine, (41, 45, 37))
    save(tmp_path / "sub-01_T1w.nii.gz", array, fine)
    save(tmp_path / "sub-01_dseg.nii.gz", np.select([array > 0.5, array > 0.1], [1007, 3]).astype(np.int16), fine)
    grid = BrainSet(save(tmp_path / "real" / "sub-00_T1w.nii", blob())).grid
    brains = BrainSet(tmp_path, grid=grid)
    (brain,) = read(brains)
    assert brain.grid is grid and brain.image.shape == (1, *grid.shape) == brain.labels.shape
    scale = np.quantile(array[array > 0], 0.995)
    np.testing.assert_allclose(brain.image[0], np.clip(here / scale, 0, 1), atol=0.08)
    labels = brain.labels[0].numpy()
    assert set(np.unique(labels)) == {0, 3, 1007}
    assert np.mean(labels == np.select([here > 0.5, here > 0.1], [1007, 3])) > 0.98
    about_image, about_labels = brains.notes
    assert f"1 of 1 brains (sub-01): image resampled to {grid}, the first from 37 x 45 x 41 voxels" in about_image
    assert "labels resampled" in about_labels and len(read(brains)) == 1 and len(brains.notes) == 2


def test_a_brain_beyond_the_grid_is_said_or_refused(tmp_path):
    whole = np.zeros((24, 14, 10), np.float32)
    whole[6:18] = blob()
    grid = BrainSet(save(tmp_path / "real.nii", blob())).grid
    for k, start in enumerate((-23, -31, -35)):
        affine = RAS.copy()
        affine[0, 3] = start
        save(tmp_path / "fake" / f"sub-{k}_T1w.nii", np.roll(whole, (0, 0, -6)[k], 0), affine)
    brains = BrainSet(tmp_path / "fake", grid=grid)
    assert names(brains) == ["sub-0", "sub-1"]
    (note,) = (n for n in brains.notes if "outside" in n)
    assert "all that it shows lies outside" in brains.problems["sub-2"]
    assert "1 of 3 brains (sub-1): a part of the brain lies outside that grid" in note


def test_a_grid_of_the_same_voxels_is_cut_and_padded_without_interpolation(tmp_path):
    folder(tmp_path / "small", 1, labelled=True)
    array = np.pad(blob(0), ((3, 1), (0, 0), (2, 5)))[:, 1:-4]
    affine = RAS.copy()
    affine[:3, 3] += 2 * np.array([-3, 1, -2])
    save(tmp_path / "other" / "sub-00_T1w.nii", array, affine)
    save(tmp_path / "other" / "sub-00_dseg.nii", np.rint(3 * array).astype(np.uint8), affine)
    (there,) = read(BrainSet(tmp_path / "small"))
    other = BrainSet(tmp_path / "other", grid=there.grid)
    (brain,) = read(other)
    kept = slice(1, SHAPE[1] - 4)
    scale = float(brain.image[0, 5, 6, 5]) / float(there.image[0, 5, 6, 5])  # another robust maximum
    torch.testing.assert_close(brain.image[0, :, kept].clamp(max=0.9), (scale * there.image[0, :, kept]).clamp(max=0.9))
    assert torch.equal(brain.labels[0, :, kept], there.labels[0, :, kept])
    for volume in (brain.image, brain.labels):
        assert not volume[0, :, 0].any() and not volume[0, :, -4:].any() and volume.shape == (1, *SHAPE[::-1])
    assert [
        w in note for w, note in zip(("image cut", "image of a part", "labels cut"), other.notes, strict=False)
    ] == [True] * 3


def test_sets_of_many_grids_have_a_note_a_treatment(tmp_path):
    folder(tmp_path, 1)
    for k in range(1, 6):
        affine = RAS.copy()
        affine[:3, 3] += 0.1 * k
        save(tmp_path / f"sub-{k:02d}_T1w.nii.gz", blob(k), affine)
    brains = BrainSet(tmp_path)
    assert len(read(brains)) == 6 and len(brains.notes) <= 2
    assert "5 of 6 brains (sub-01, sub-02, sub-03, ...): image resampled" in brains.notes[0]


def test_a_grid_elsewhere_is_refused_with_both_grids_named(tmp_path):
    folder(tmp_path, 2)
    moved = RAS.copy()
    moved[:3, 3] += (18, 18, 0)
    save(tmp_path / "sub-01_T1w.nii.gz", blob(1), moved)
    brains = BrainSet(tmp_path)
    assert names(brains) == ["sub-00"]
    assert "first voxel at (7, 5, -9)" in brains.problems["sub-01"] and str(brains.grid) in brains.problems["sub-01"]
    with pytest.raises(UserError, match="they overlap by"):
        brains.read(brains.scans[1])


def test_a_cropped_volume_says_how_much_of_the_grid_it_covers(tmp_path):
    folder(tmp_path, 2)
    cropped = RAS.copy()
    cropped[2, 3] += 6
    save(tmp_path / "sub-01_T1w.nii.gz", blob(1)[:, :, 3:], cropped)
    brains = BrainSet(tmp_path)
    last = read(brains)[-1]
    assert "image of a part of that grid only, the first of 70%" in brains.notes[1]
    assert float(last.image[0, :3].max()) == 0 < float(last.image[0, 3:].max())


@pytest.mark.parametrize("affine", [np.eye(4), None])
def test_a_header_without_a_place_can_be_ignored_when_asked(tmp_path, affine):
    folder(tmp_path / "real", 1)
    real = BrainSet(tmp_path / "real")
    save(tmp_path / "fake" / "sub-00_T1w.nii", blob(0), affine)
    assert names(BrainSet(tmp_path / "fake", grid=Grid(real.grid.shape, real.grid.affine + 99, "RAS"))) == []
    fake = BrainSet(tmp_path / "fake", grid=real.grid, ignore_affine=True)
    assert torch.equal(read(fake)[0].image, read(real)[0].image) and "affine ignored" in fake.notes[0]
    save(tmp_path / "fake" / "sub-00_T1w.nii", blob(0)[1:], affine)
    assert names(fake) == [] and "11 x 14 x 10 voxels, expected 12 x 14 x 10" in fake.problems["sub-00"]


RANGES = {
    "unit": (lambda x: x, None),
    "bytes": (lambda x: np.rint(255 * x).astype(np.uint8), "up to 255"),
    "scanner": (lambda x: 3000 * x, "above 255"),
    "overshoot": (lambda x: 1.2 * x, "up to 255"),
    "both": (lambda x: 2 * x - 1, "both signs"),
    "both, one voxel lower": (
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, -1.03, 2 * x - 1),
        "both signs",
    ),
    "z-score": (lambda x: (x - x.mean()) / x.std(), "both signs"),
}


@pytest.mark.parametrize("kind", RANGES)
def test_ranges_of_intensities_come_to_one_and_are_said(tmp_path, kind):
    change, said = RANGES[kind]
    image = blob()
    save(tmp_path / "sub-00_T1w.nii.gz", change(image))
    brains = BrainSet(tmp_path)
    (brain,) = read(brains)
    expected = np.clip(image / np.quantile(image[image > 0], 0.995), 0, 1).transpose(2, 1, 0)
    np.testing.assert_allclose(brain.image[0], expected, atol=0.005 if kind == "bytes" else 1e-5)
    assert [said in note for note in brains.notes] == ([True] if said else [])


def test_a_little_below_zero_is_cut(tmp_path):
    image = blob()
    save(tmp_path / "sub-00_T1w.nii.gz", image - 0.03 * np.random.default_rng(0).random(SHAPE))
    brains = BrainSet(tmp_path)
    assert float(read(brains)[0].image.min()) == 0 and len(brains.notes) == 1


@pytest.mark.parametrize("dark", [0, 1])
def test_a_z_score_within_the_brain_is_refused_as_its_zero_is_lost(tmp_path, dark):
    image = blob()
    inside = image > 0
    image[inside] = np.maximum(image[inside], dark * np.median(image[inside]))  # so much fluid, all alike
    image[inside] = (image[inside] - image[inside].mean()) / image[inside].std()
    save(tmp_path / "sub-00_T1w.nii.gz", image)
    brains = BrainSet(tmp_path)
    assert names(brains) == []
    assert "sub-00_T1w.nii.gz: intensities from -" in brains.problems["sub-00"]
    assert "with the background between, expected [0, 1], 0-255" in brains.problems["sub-00"]


def test_without_rescaling_intensities_stay_as_they_are_and_others_are_refused(tmp_path):
    save(tmp_path / "sub-00_T1w.nii.gz", 0.5 * blob())
    save(tmp_path / "sub-01_T1w.nii.gz", 255 * blob())
    brains = BrainSet(tmp_path, rescale=False)
    (brain,) = read(brains)
    np.testing.assert_array_equal(brain.image[0], 0.5 * blob().transpose(2, 1, 0))
    assert "intensities from 0 to 255, expected [0, 1]" in brains.problems["sub-01"]


def test_too_few_brains_for_a_purpose_say_so_with_the_first_reason(tmp_path):
    folder(tmp_path, 3)
    brains = BrainSet(tmp_path)
    brains.require(3, "FID")
    with pytest.raises(UserError, match=rf"^{tmp_path}: FID needs 4 or more brains, found 3$"):
        brains.require(4, "FID")
    (tmp_path / "sub-01_T1w.nii.gz").write_bytes(b"")
    read(brains)
    with pytest.raises(UserError, match=r"FID needs 3 or more brains, found 2, and 1 that can't be used.*sub-01_T1w"):
        brains.require(3, "FID")


def test_filling_a_store_keeps_two_volumes_at_the_most(tmp_path, monkeypatch):
    shape = (40, 40, 40)
    first = save(tmp_path / "sub-000_T1w.nii", blob(0, shape))
    for k in range(1, 200):
        (tmp_path / f"sub-{k:03d}_T1w.nii").symlink_to(first)
    alive: weakref.WeakSet = weakref.WeakSet()
    most, original = [], BrainSet.read

    def watched(self: BrainSet, scan: Scan) -> Brain:
        brain = original(self, scan)
        alive.add(brain.image)
        most.append(len(alive))
        return brain

    monkeypatch.setattr(BrainSet, "read", watched)
    store = Store("set", BrainSet(tmp_path), tmp_path / "work")
    tracemalloc.start()
    store.fill()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert store.names[-1] == "sub-199" and len(most) == 200 and max(most) <= 2
    assert peak < 4 * 4 * 40**3 + 2**20  # bytes of four volumes, of what numpy holds, and of a piece that is hashed


def test_a_background_far_above_zero_is_taken_as_zero_and_said(tmp_path):
    save(tmp_path / "sub-00_T1w.nii.gz", 900 * blob() + 1000)
    brains = BrainSet(tmp_path)
    (brain,) = read(brains)
    image = blob()
    expected = np.clip(image / np.quantile(image[image > 0], 0.995), 0, 1).transpose(2, 1, 0)
    np.testing.assert_allclose(brain.image[0], expected, atol=1e-3)
    assert "a background of 1e+03 taken as zero" in brains.notes[0]


def test_what_is_to_be_ignored_may_be_anything(tmp_path):
    folder(tmp_path / "real")
    for k, affine in enumerate((RAS, np.diag([1e9, 1, 1, 1]), None)):
        save(tmp_path / "fake" / f"sub-{k:02d}_T1w.nii", blob(k), affine)
    data = bytearray((tmp_path / "fake" / "sub-00_T1w.nii").read_bytes())
    data[280:296] = bytes(16)  # srow_x
    (tmp_path / "fake" / "sub-00_T1w.nii").write_bytes(data)
    real = BrainSet(tmp_path / "real")
    fake = BrainSet(tmp_path / "fake", grid=real.grid, ignore_affine=True)
    assert len(names(fake)) == 3
