import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cortexgen.atlas.alignment import align, check_alignment
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.plausibility import check_brain
from cortexgen.atlas.template import load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume, write_volume
from cortexgen.spatial import resample


@pytest.fixture(scope="module")
def template():
    full = load_template()
    return full.to(full.grid.at_spacing(3))


def refusal(image, grid):
    with pytest.raises(UserError) as error:
        check_brain(image, grid, "sub-01_T1w.nii.gz")
    line = str(error.value)
    assert line.startswith("sub-01_T1w.nii.gz: ") and "\n" not in line
    return line


def cut(image, grid, axis, upper, millimetres):
    """The image without what lies beyond a plane, `millimetres` inside the brain."""
    inside = torch.nonzero((image[0] > 0.05).movedim(axis, 0).flatten(1).any(dim=1)).flatten()
    n = round(millimetres / grid.spacing[axis])
    low, high = [0, 0, 0], [s - 1 for s in grid.shape]
    if upper:
        high[axis] = int(inside[-1]) - n
    else:
        low[axis] = int(inside[0]) + n
    d, h, w = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    return image[:, d, h, w], grid.box(low, high)


def with_skull(template):
    """A dark skull and a bright scalp around the template's brain."""
    brain = template.mask.float()
    skull = F.max_pool3d(brain, 5, 1, 2)
    scalp = F.max_pool3d(skull, 9, 1, 4)
    return torch.where(brain > 0, template.image * 0.6, torch.where(skull > 0, 0.02, scalp * 0.9))


@pytest.mark.parametrize("spacing", [1.0, 2.0, 5.0, 8.0])
def test_a_brain_passes_at_any_voxel_size(spacing):
    full = load_template()
    brain = full.to(full.grid.at_spacing(spacing))
    check_brain(brain.image, brain.grid)
    small = Grid(brain.grid.shape, np.diag([0.85, 0.85, 0.85, 1]) @ brain.grid.affine)
    check_brain(brain.image, small)


def test_a_head_with_its_skull_is_to_be_stripped(template):
    line = refusal(with_skull(template), template.grid)
    assert "expected 600-2600 ml of brain" in line and "strip the skull" in line and "cortexgen preprocess" in line


@pytest.mark.parametrize(
    ("axis", "upper", "name"),
    [(0, True, "superior"), (0, False, "inferior"), (1, True, "anterior"), (2, False, "left")],
)
def test_a_cut_brain_is_refused_by_the_side_that_is_missing(template, axis, upper, name):
    image, grid = cut(template.image, template.grid, axis, upper, 39 if name == "inferior" else 21)
    assert f"at the {name} end" in refusal(image, grid)
    padded = F.pad(image, (6, 6) * 3)  # air around a cut doesn't hide it
    around = grid.box([-6] * 3, [n + 5 for n in grid.shape])
    assert f"at the {name} end" in refusal(padded, around)


def test_a_wrong_voxel_size_shows_in_the_volume(template):
    metres = Grid(template.grid.shape, np.diag([1e-3, 1e-3, 1e-3, 1]) @ template.grid.affine)
    assert "voxels of the size that the header says" in refusal(template.image, metres)
    assert "600" in refusal(template.image * (template.image > 0.98), template.grid)


def test_masks_and_label_maps_are_no_images(template):
    for image in (template.mask.float(), normalize(template.labels.float())):
        assert "a mask or a label map" in refusal(image, template.grid)


def test_zeros_constants_and_noise_are_refused(template, tmp_path):
    shape = template.image.shape
    assert "every voxel is 0" in refusal(torch.zeros(shape), template.grid)
    assert "every voxel is 1" in refusal(torch.ones(shape), template.grid)
    assert "ml are brighter than air" in refusal(
        torch.rand(shape, generator=torch.Generator().manual_seed(0)), template.grid
    )
    with pytest.raises(UserError, match="no voxel is above zero"):
        normalize(torch.zeros(shape))
    for value in (0.0, 3.0):
        write_volume(tmp_path / "constant.nii.gz", torch.full(shape, value), template.grid)
        with pytest.raises(UserError, match="contrast"):
            read_volume(tmp_path / "constant.nii.gz")


@pytest.mark.parametrize("kind", ["ball", "box"])
def test_phantoms_of_a_brains_size_are_refused_at_the_latest_after_their_affine(template, kind):
    axes = [torch.arange(n) * 3.0 - (n - 1) * 1.5 for n in template.grid.shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    radius = torch.sqrt(x**2 + y**2 + z**2) / 72 if kind == "ball" else torch.stack([x, y, z]).abs().amax(0) / 55
    noise = torch.randn(radius.shape, generator=torch.Generator().manual_seed(0))
    image = ((radius < 1) * (0.7 + 0.05 * noise))[None]
    with pytest.raises(UserError, match=r"plane" if kind == "box" else r"affine .* failed") as error:
        check_brain(image, template.grid, kind)
        check_alignment(image, template.grid, template, align(image, template.grid, template, kind), kind)
    assert str(error.value).startswith(f"{kind}: ")


@pytest.fixture(scope="module")
def simulated(cohort):
    """A simulated brain at 8 mm and its grid."""
    path = next(cohort.glob("sub-*/anat/*_T1w.nii.gz"))
    image, grid = read_volume(path)
    return normalize(image, path), grid


def scaled(grid, factor):
    return Grid(grid.shape, np.diag([factor, factor, factor, 1]) @ grid.affine)


@pytest.mark.parametrize(("millilitres", "fine"), [(560, False), (650, True), (2500, True), (2750, False)])
def test_the_volume_of_a_brain(simulated, millilitres, fine):
    image, grid = simulated
    volume = float((image > 0.05).sum()) * grid.voxel_volume / 1000
    grid = scaled(grid, (millilitres / volume) ** (1 / 3))
    if fine:
        check_brain(image, grid)
    else:
        assert f"{millilitres} ml are brighter than air, expected 600-2600 ml" in refusal(image, grid)


@pytest.mark.parametrize(("values", "fine"), [(28, False), (36, True)])
def test_a_brain_has_as_many_values(simulated, values, fine):
    image, grid = simulated
    coarse = torch.where(image > 0.05, (image * (values - 1)).round() / (values - 1) * 0.9 + 0.1, 0)
    assert torch.unique(coarse).numel() in (values - 1, values, values + 1)
    if fine:
        check_brain(coarse, grid)
    else:
        assert "different values, expected 32 or more" in refusal(coarse, grid)


@pytest.mark.parametrize("spacing", [8.0, 4.0])
@pytest.mark.parametrize(("axis", "upper", "name"), [(0, True, "superior"), (0, False, "inferior"), (2, True, "right")])
def test_a_brain_ends_in_so_large_a_plane_and_no_larger(simulated, spacing, axis, upper, name):
    """A plane of tissue beside the brain: 20 cm², 60 at the stem, and 4.4 for each millimetre of its thickness."""
    image, grid = simulated
    target = grid.at_spacing(spacing)
    image = resample(image[None], grid.torch_affine, target.shape, target.torch_affine)[0]
    tissue = (image[0] > 0.05).movedim(axis, 0)
    occupied = torch.nonzero(tissue.flatten(1).any(dim=1)).flatten()
    outside = int(occupied[-1]) + 1 if upper else int(occupied[0]) - 1
    distance = torch.cartesian_prod(*[(torch.arange(n) - (n - 1) / 2).square() for n in tissue.shape[1:]]).sum(dim=1)
    expected = (60 if name == "inferior" else 20) + 4.4 * spacing
    for area, fine in ((expected - 5, True), (expected + 5, False)):
        plane = torch.zeros(distance.shape)
        plane[distance.argsort()[: round(area * 100 / spacing**2)]] = 0.5
        ended = image.clone()
        ended[0].movedim(axis, 0)[outside] = plane.view(tissue.shape[1:])
        if fine:
            check_brain(ended, target)
        else:
            assert f"at the {name} end, expected at most {expected:.0f}" in refusal(ended, target)


def test_real_brains_pass(real_brains):
    for path in sorted(real_brains.glob("sub-*/anat/*_T1w.nii.gz")):
        image, grid = read_volume(path)
        check_brain(normalize(image, path), grid, path)


def test_a_real_head_is_to_be_stripped(real_brains):
    path = real_brains.parent / "colin27" / "ch2.nii.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    image, grid = read_volume(path)
    with pytest.raises(UserError, match="strip the skull first"):
        check_brain(normalize(image, path), grid, path)
