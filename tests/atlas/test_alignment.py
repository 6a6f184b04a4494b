import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nibabel.affines import apply_affine
from scipy.ndimage import distance_transform_edt
from scipy.spatial.transform import Rotation

from cortexgen.atlas.alignment import ALIGNED, agreement, align, check_alignment, in_template_space
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import BRAIN_FOREGROUND, load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume
from cortexgen.io.nifti import to_memory
from cortexgen.simulation.cohort import prepare, scan, simulate_subject
from cortexgen.spatial import antialias, resample


@pytest.fixture(scope="module")
def template():
    """The MNI152 template at 3 mm, on which these tests are fast."""
    full = load_template()
    return full.to(full.grid.at_spacing(3))


def affine_of(angles, scales, shift):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(scales)
    affine[:3, 3] = shift
    return affine


def moved(image, grid, affine, spacing, codes="RAS"):
    """What a scanner that sees the template through `affine` would write, read again: an image and its grid."""
    size = np.array(spacing)
    low, high = -np.array([90, 105, 90.0]), np.array([90, 105, 90.0])
    signs = np.array([1 if c in "RAS" else -1 for c in codes])
    axes = np.diag([*(signs * size), 1.0])
    centre = apply_affine(affine, [0, -18, 8.0])
    axes[:3, 3] = centre + np.where(signs > 0, low, high)
    shape = tuple(np.ceil((high - low) / size).astype(int))
    _, target = to_memory(np.zeros(shape, np.float32), axes)
    inside = torch.from_numpy(np.linalg.inv(affine) @ target.affine)
    return resample(image[None], grid.torch_affine, target.shape, inside)[0], target


def brain_error(template, found, true):
    """Mean distance over the template's brain in millimetres."""
    points = apply_affine(template.grid.affine, torch.nonzero(template.mask[0]).numpy()[::20])
    return np.linalg.norm(apply_affine(found, points) - apply_affine(true, points), axis=1).mean()


@pytest.mark.parametrize(
    ("angles", "scales", "shift", "spacing", "codes"),
    [
        ((-14, -3, 6), (0.95, 0.88, 0.82), (12, 30, -25), (0.9, 0.9, 0.9), "LAS"),
        ((35, -12, -10), (1.05, 0.92, 0.9), (0, -300, 10), (2, 3, 4), "RPI"),
    ],
)
def test_a_known_affine_is_found_again(template, angles, scales, shift, spacing, codes):
    true = affine_of(angles, scales, shift)
    image, grid = moved(template.image, template.grid, true, spacing, codes)
    coil = torch.linspace(0.3, 1.7, grid.shape[0]).view(1, -1, 1, 1)  # brighter upwards, as the wrong coil has it
    image = normalize(image**1.6 * coil)
    assert not in_template_space(image, grid, template)
    found = align(image, grid, template)
    assert found.dtype == np.float64 and np.array_equal(found[3], [0, 0, 0, 1])
    assert brain_error(template, found, true) < 1.5
    assert check_alignment(image, grid, template, found) == agreement(image, grid, template, found)
    assert agreement(image, grid, template, found).overlap > 0.95


def test_what_is_left_of_a_neck_does_not_pull_on_the_affine(template):
    """100 ml below the brain."""
    index = np.stack(np.indices(template.grid.shape), axis=-1)
    x, y, z = np.moveaxis(apply_affine(template.grid.affine, index), -1, 0)
    neck = torch.from_numpy((np.hypot(x, y + 25) < 35) & (z < -35))[None] & ~template.mask
    true = affine_of((10, 3, -4), (0.95, 0.9, 0.85), (5, 20, 10))
    image, grid = moved(torch.where(neck, 0.7, template.image), template.grid, true, (3, 3, 3), "LAS")
    assert brain_error(template, align(image, grid, template), true) < 0.5


@pytest.fixture(scope="module")
def subject(template):
    """A simulated brain on the template's grid."""
    full = load_template()
    anatomy = prepare(full)
    smooth = antialias(full.image[None], [3.0] * 3)
    drawn = simulate_subject(anatomy, 7, 0)
    return scan(drawn, anatomy.grid, smooth, full.grid, template, np.random.default_rng(0))[0]


def test_another_anatomy_is_aligned(template, subject):
    assert in_template_space(subject, template.grid, template)
    true = affine_of((15, 0, 5), (0.9, 0.9, 0.8), (10, 20, 30))
    grid = Grid(template.grid.shape, true @ template.grid.affine)
    found = align(subject, grid, template)
    assert brain_error(template, found, true) < 4  # a shape of its own has another best affine
    check_alignment(subject, grid, template, found)


def test_each_run_gives_the_same_bytes_whatever_the_threads(template, subject, monkeypatch):
    monkeypatch.setattr("cortexgen.atlas.alignment.LEVELS", ((8.0, True, 20),))
    threads, found = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(), []
    try:
        for number in (1, 1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
            found.append(align(subject, template.grid, template).tobytes())
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == number
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert found[0] == found[1] == found[2]


def test_an_image_beside_the_template_in_no_overlap_is_an_error_in_one_line(template):
    image = torch.zeros(1, *template.grid.shape)
    image[:, 0, 0, 0] = 1.0
    with pytest.raises(UserError, match="speck: ") as error:
        check_alignment(image, template.grid, template, align(image, template.grid, template, "speck"), "speck")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.diag([-1.0, 1, 1, 1]), "mirrors"),
        (affine_of((0, 0, 0), (0.5, 0.5, 0.5), (0, 0, 0)), "scales by 0.50, 0.50, 0.50"),
        (affine_of((0, 0, 0), (1.3, 0.8, 0.8), (0, 0, 0)), "at most 1.45 times another"),
        (affine_of((0, 0, 0), (1, 1, 1), (0, 40, 0)), "overlap 0"),
    ],
)
def test_a_wrong_affine_is_refused_in_one_line(template, affine, words):
    with pytest.raises(UserError, match=words) as error:
        check_alignment(template.image, template.grid, template, affine, "sub-01_T1w.nii.gz")
    assert str(error.value).startswith("sub-01_T1w.nii.gz: ") and "\n" not in str(error.value)


def test_what_has_a_brains_outline_but_not_its_contrast_is_refused(template):
    inside = template.mask
    shuffled, inverted = template.image.clone(), torch.where(inside, 1.05 - template.image, 0.0)
    order = torch.randperm(int(inside.sum()), generator=torch.Generator().manual_seed(0))
    shuffled[inside] = template.image[inside][order]
    for image in (shuffled, inverted, template.image.flip(2)):
        assert not in_template_space(image, template.grid, template)
        with pytest.raises(UserError, match="correlation"):
            check_alignment(image, template.grid, template, np.eye(4))


@pytest.mark.parametrize(
    ("overlap", "correlation", "there", "aligned"),
    [
        (0.97, 0.50, True, True),
        (0.97, 0.40, False, True),
        (0.97, 0.30, False, False),
        (0.86, 0.50, False, False),
    ],
)
def test_how_much_worse_than_usual_a_brain_may_fit(template, subject, degraded, overlap, correlation, there, aligned):
    """A simulated brain with tissue around it and noise: between what real brains reach and what others do."""
    image = degraded(subject, template, overlap, correlation)
    found = agreement(image, template.grid, template)
    assert (found.overlap, found.correlation) == pytest.approx((overlap, correlation), abs=0.05)
    assert found.lead > ALIGNED[2]  # however little of its contrast is left
    assert in_template_space(image, template.grid, template) == there
    if aligned:
        assert check_alignment(image, template.grid, template, np.eye(4)) == found
    else:
        with pytest.raises(UserError, match=rf"overlap {found.overlap:.2f} and correlation {found.correlation:.2f}"):
            check_alignment(image, template.grid, template, np.eye(4))


@pytest.mark.parametrize("angles", [(10, 0, 0), (-10, 0, 0), (0, 10, 0), (0, 0, 10), (0, 0, -10)])
def test_an_affine_that_is_turned_is_refused_although_tissues_overlap(template, subject, angles):
    turned = affine_of(angles, (1, 1, 1), (0, 0, 0))
    turned[:3, 3] = [0, -18, 8] - turned[:3, :3] @ [0, -18, 8]
    found = agreement(subject, template.grid, template, turned)
    assert found.overlap > 0.91 and found.lead < -0.1
    assert not in_template_space(subject, Grid(template.grid.shape, turned @ template.grid.affine), template)
    expected = rf"correlation {found.correlation:.2f} .*, {found.correlation - found.lead:.2f} if turned by 8 degrees"
    with pytest.raises(UserError, match=expected):
        check_alignment(subject, template.grid, template, turned)


@pytest.mark.parametrize(
    "affine", [affine_of((0, 0, 0), (1, 1, 1), (0, 12, 0)), affine_of((0, 0, 0), [1.08] * 3, (0, 2, 0))]
)
def test_an_affine_that_is_shifted_or_too_large_is_refused_by_its_overlap(template, subject, affine):
    with pytest.raises(UserError, match=r"overlap 0\.8"):
        check_alignment(subject, template.grid, template, affine)


def size(affine):
    return np.linalg.det(affine[:3, :3]) ** (1 / 3)


def test_a_loose_mask_and_a_tight_one_give_the_same_size(template, subject):
    """With 3 mm and 6 mm of fluid around the brain, and cut through its outermost voxels."""
    outside, inside = (
        torch.from_numpy(distance_transform_edt(mask[0].numpy(), sampling=template.grid.spacing))[None]
        for mask in (subject <= BRAIN_FOREGROUND, subject > 0.35)
    )
    sizes = [size(align(subject, template.grid, template))]
    for reach, value in ((3.1, 0.2), (6.1, 0.25)):
        loose = torch.where((outside > 0) & (outside < reach), value, subject)
        sizes.append(size(align(loose, template.grid, template)))
    sizes.append(size(align(torch.where(inside > 0, subject, 0.0), template.grid, template)))
    assert max(sizes) / min(sizes) < 1.01, sizes


@pytest.mark.parametrize(
    ("scales", "fine"),
    [
        ((0.68, 0.68, 0.68), True),
        ((0.62, 0.7, 0.7), False),
        ((1.3, 1.3, 1.3), True),
        ((1.4, 1.3, 1.3), False),
        ((1.26, 0.9, 0.9), True),
        ((1.26, 0.84, 0.84), False),
    ],
)
def test_heads_differ_by_so_much_and_no_more(template, subject, scales, fine):
    affine = affine_of((0, 0, 0), scales, (0, 0, 0))
    grid = Grid(template.grid.shape, affine @ template.grid.affine)  # fits, but for its size
    if fine:
        assert check_alignment(subject, grid, template, affine).correlation > 0.7
    else:
        with pytest.raises(UserError, match="scales by"):
            check_alignment(subject, grid, template, affine)


def test_real_brains_are_in_template_space_and_keep_their_affine_under_a_turned_header(real_brains, template):
    for path in sorted(real_brains.glob("sub-*[05]/anat/*_T1w.nii.gz"))[:4]:
        image, grid = read_volume(path)
        image = normalize(image, path)
        assert in_template_space(image, grid, template)
        check_alignment(image, grid, template, np.eye(4), path)
    turn = affine_of((20, 8, -12), (0.92, 0.88, 0.82), (5, 30, 20))
    turned = Grid(grid.shape, turn @ grid.affine)
    assert not in_template_space(image, turned, template)
    found = align(image, turned, template, path)
    check_alignment(image, turned, template, found, path)
    assert brain_error(template, found, turn) < 3


@pytest.mark.parametrize("name", ["sub-02", "sub-45"])
def test_native_brains_are_aligned_neck_or_not(real_brains, template, name):
    path = real_brains.parent / "ds002748-raw" / name / "anat" / f"{name}_T1w.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    image, grid = read_volume(path)
    image = normalize(image, path)
    assert not in_template_space(image, grid, template)
    check_alignment(image, grid, template, align(image, grid, template, path), path)
