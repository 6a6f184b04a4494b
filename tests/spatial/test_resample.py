import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import convolve1d, map_coordinates
from scipy.spatial.transform import Rotation

from cortexgen.spatial import antialias, coarse_shape, folded, from_coarse, integrate, resample, resample_field, turned


def _affine(angles, spacing, origin):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 3] = origin
    return affine


SOURCE = _affine((10, -25, 40), (1.3, -0.9, 2.0), (-4, 7, 3))


def _itk_image(array, affine):
    """An ITK image whose index runs in the order of the array's axes, its world turned from RAS to LPS."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    lps = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetDirection((lps[:3, :3] / spacing).ravel())
    image.SetOrigin(lps[:3, 3])
    return image


@pytest.mark.parametrize("mode, interpolator", [("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)])
def test_oblique_anisotropic_resampling_matches_itk(rng, mode, interpolator):
    # A rim of zeros, so that ITK's extrapolation by half a voxel does not show.
    volume = np.pad(rng.uniform(0, 1, (11, 14, 9)), 2)
    shape = (17, 23, 20)
    target = _affine((-15, 5, 70), (0.8, 0.85, -0.75), (0, 0, 0))
    middle = SOURCE[:3, :3] @ (np.array(volume.shape) / 2) + SOURCE[:3, 3]
    target[:3, 3] = middle - target[:3, :3] @ (np.array(shape) / 2)
    grid = _itk_image(np.zeros(shape), target)
    expected = sitk.GetArrayFromImage(sitk.Resample(_itk_image(volume, SOURCE), grid, sitk.Transform(), interpolator))
    expected = expected.transpose(2, 1, 0)
    out = resample(
        torch.from_numpy(volume)[None, None], torch.from_numpy(SOURCE), shape, torch.from_numpy(target), mode
    )[0, 0].numpy()
    assert (expected > 0).mean() > 0.3
    assert (np.abs(out - expected) < 1e-4).mean() > (1 - 1e-9 if mode == "linear" else 0.999)


def test_resampling_to_the_same_grid_changes_nothing(rng):
    volume, affine = torch.from_numpy(rng.uniform(0, 1, (2, 3, 5, 6, 7))).float(), torch.from_numpy(SOURCE)
    out = resample(volume, affine, (5, 6, 7), affine, padding="border")
    torch.testing.assert_close(out, volume, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, -3, 1), (-4, 9, -6), (5, 0, 0), (0, -9, 0), (1, 0.5, 0)])
@pytest.mark.parametrize("padding, mode", [("zeros", "grid-constant"), ("border", "nearest")])
def test_a_grid_that_shares_voxels_takes_them(rng, shift, padding, mode):
    volume, shape = rng.uniform(0, 1, (5, 6, 7)), (4, 8, 7)
    between = np.eye(4)
    between[:3, 3] = shift
    places = np.indices(shape) + np.reshape(shift, (3, 1, 1, 1))
    affines = torch.from_numpy(SOURCE), torch.from_numpy(SOURCE @ between)
    out = resample(torch.from_numpy(volume)[None, None], affines[0], shape, affines[1], padding=padding)
    np.testing.assert_allclose(out[0, 0], map_coordinates(volume, places, order=1, mode=mode), atol=1e-6)


@pytest.mark.parametrize("angles", [(0, 0, 0), (0, 90, 0), (10, -25, 40)])
def test_turned_vectors_are_the_matrix_product(rng, angles):
    field, matrix = rng.normal(size=(2, 3, 4, 5, 6)), _affine(angles, (1.3, -0.9, 2.0), 0)[:3, :3]
    expected = np.einsum("ij,bj...->bi...", matrix, field)
    np.testing.assert_allclose(turned(torch.from_numpy(field), torch.from_numpy(matrix)), expected, atol=1e-9)


@pytest.mark.parametrize(
    "factor, triangle", [(2, [1, 2, 1]), (3, [1, 2, 3, 2, 1]), (1.5, [1, 3, 1]), (2.5, [1, 3, 5, 3, 1])]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_antialiasing_is_a_triangle_along_its_axis(rng, axis, factor, triangle):
    volume = rng.uniform(0, 1, (2, 2, 6, 7, 8))
    factors = [1.0, 0.5, 1.0]
    factors[axis] = factor
    expected = convolve1d(volume, np.array(triangle) / sum(triangle), axis=2 + axis, mode="nearest")
    np.testing.assert_allclose(antialias(torch.from_numpy(volume), factors), expected, atol=1e-5)


def test_coarser_volume_is_smoothed_then_sampled(rng):
    volume = rng.uniform(0, 1, (10, 7, 12))
    coarse = torch.diag(torch.tensor([2.0, 1.0, -3.0, 1.0]))
    coarse[2, 3] = 11
    out = resample(torch.from_numpy(volume)[None, None], torch.eye(4), (5, 7, 4), coarse)[0, 0]
    smoothed = convolve1d(volume, [0.25, 0.5, 0.25], axis=0, mode="nearest")
    smoothed = convolve1d(smoothed, np.array([1, 2, 3, 2, 1]) / 9, axis=2, mode="nearest")
    np.testing.assert_allclose(out, smoothed[::2, :, ::-3], atol=1e-5)


@pytest.mark.parametrize("padding, scipy_mode", [("border", "nearest"), ("zeros", "grid-constant")])
def test_parallel_grid_that_overhangs_matches_scipy(rng, padding, scipy_mode):
    volume, shape = rng.uniform(0, 1, (2, 9, 12, 7)), (14, 8, 6)
    step, start = np.array([0.7, -2.0, 1.0]), np.array([-0.9, 13.4, 1.25])
    between = np.diag([*step, 1])
    between[:3, 3] = start
    smoothed = convolve1d(volume, [0.25, 0.5, 0.25], axis=2, mode="nearest")
    positions = np.indices(shape) * step.reshape(3, 1, 1, 1) + start.reshape(3, 1, 1, 1)
    expected = [map_coordinates(v, positions, order=1, mode=scipy_mode) for v in smoothed]
    target = torch.from_numpy(SOURCE @ between)
    out = resample(torch.from_numpy(volume)[None], torch.from_numpy(SOURCE), shape, target, padding=padding)
    np.testing.assert_allclose(out[0], expected, atol=1e-5)


def test_swapped_axes_are_smoothed_where_they_get_coarser(rng):
    volume = torch.from_numpy(rng.uniform(0, 1, (1, 1, 5, 6, 9))).float()
    swap = torch.tensor([[0.0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    out = resample(volume, torch.eye(4), (5, 6, 5), swap)
    smoothed = convolve1d(volume[0, 0], [0.25, 0.5, 0.25], axis=2, mode="nearest")
    np.testing.assert_allclose(out[0, 0], smoothed[:, :, ::2].transpose(2, 1, 0), atol=1e-5)


def test_coarser_labels_are_picked_not_smoothed(rng):
    labels = torch.from_numpy(rng.integers(0, 50, (1, 1, 8, 9, 6)))
    out = resample(labels, torch.eye(4), (4, 3, 6), torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0])), mode="nearest")
    assert torch.equal(out, labels[:, :, ::2, ::3])


def test_field_keeps_its_millimetres_on_another_grid(rng):
    shape, shape_to = (13, 16, 12), (5, 6, 7)
    target = _affine((5, -10, 60), (-1.6, 1.1, 0.8), (0, 0, 0))
    middle = SOURCE[:3, :3] @ ((np.array(shape) - 1) / 2) + SOURCE[:3, 3]
    target[:3, 3] = middle - target[:3, :3] @ ((np.array(shape_to) - 1) / 2)
    gradient, offset = rng.uniform(-0.2, 0.2, (3, 3)), rng.uniform(-2, 2, 3)

    def in_voxels(affine, size):
        world = affine[:3, :3] @ np.indices(size).reshape(3, -1) + affine[:3, 3:]
        millimetres = gradient @ world + offset[:, None]
        return np.linalg.solve(affine[:3, :3], millimetres).reshape(1, 3, *size)

    between = np.linalg.solve(SOURCE, target)
    positions = between[:3, :3] @ np.indices(shape_to).reshape(3, -1) + between[:3, 3:]
    assert (positions >= 0).all() and (np.array(shape) - 1 >= positions.T).all()
    out = resample_field(
        torch.from_numpy(in_voxels(SOURCE, shape)), torch.from_numpy(SOURCE), shape_to, torch.from_numpy(target)
    )
    np.testing.assert_allclose(out, in_voxels(target, shape_to), atol=1e-3)


@pytest.mark.parametrize("shape, factor", [((9, 7, 11), 2), ((8, 10, 6), 2), ((9, 10, 11), 3), ((5, 6, 7), 1)])
def test_coarse_grid_is_every_nth_voxel_of_the_full_one(rng, shape, factor):
    coarse = coarse_shape(shape, factor)
    assert coarse == np.empty(shape)[::factor, ::factor, ::factor].shape
    field = rng.standard_normal((1, 3, *coarse))
    out = from_coarse(torch.from_numpy(field).float(), shape, factor)
    np.testing.assert_allclose(out[:, :, ::factor, ::factor, ::factor], factor * field, atol=1e-4)
    positions = np.indices(shape) / factor
    expected = [factor * map_coordinates(c, positions, order=1, mode="nearest") for c in field[0]]
    np.testing.assert_allclose(out[0], expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(25, 29, 27), (26, 28, 24)])
def test_finer_grid_adds_no_fold_and_hides_none(smooth, shape):
    field = integrate(smooth(3, coarse_shape(shape, 2), 2, 2.0))
    assert folded(field).item() == 0
    assert folded(from_coarse(field, shape, 2)).item() == 0
    field[0, 1, 6, 6, 6] += 3
    assert folded(field).item() > 0
    assert folded(from_coarse(field, shape, 2)).item() > 0


def test_geometry_is_float32_under_autocast():
    """A position in bfloat16 would be wrong by a voxel at 200."""
    generator = torch.Generator().manual_seed(0)
    field = torch.randn(1, 3, 9, 10, 110, generator=generator)
    affine = torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64))
    turned = affine.clone()
    turned[0, 1], turned[1, 0] = 0.1, -0.1
    outside = (resample_field(field, affine, (17, 19, 219), turned), resample(field, affine, (17, 19, 219), turned))
    with torch.autocast("cpu", torch.bfloat16):
        inside = (resample_field(field, affine, (17, 19, 219), turned), resample(field, affine, (17, 19, 219), turned))
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)
