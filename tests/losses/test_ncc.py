import numpy as np
import pytest
import torch
from monai.losses import LocalNormalizedCrossCorrelationLoss

from cortexgen.losses import Correlation, global_ncc, gradient_energy, local_ncc, ncc_force, roughness_gradient
from cortexgen.spatial import antialias, warp


def _images(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    first, noise = torch.rand(2, 1, 1, *shape, generator=generator)
    return first, 0.5 * first + 0.5 * noise


def _at(voxel, shape):
    mask = torch.zeros(1, 1, *shape)
    mask[(0, 0, *voxel)] = 1
    return mask


@pytest.mark.parametrize("slope", [2.0, -0.7])
def test_affine_relation_of_intensities_is_perfect(slope):
    image, _ = _images((11, 12, 13))
    assert local_ncc(slope * image + 0.4, image, eps=1e-7).item() == pytest.approx(1, abs=1e-4)


def test_affine_change_of_either_image_does_not_matter():
    first, second = _images((11, 12, 13))
    reference = local_ncc(first, second, eps=1e-8)
    assert 0.2 < reference < 0.9
    torch.testing.assert_close(local_ncc(1.5 * first - 0.3, 0.6 - second, eps=1e-8), reference, atol=1e-4, rtol=0)
    torch.testing.assert_close(local_ncc(second, first, eps=1e-8), reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("voxel", [(5, 4, 6), (0, 0, 0), (8, 0, 9), (1, 7, 3)])
@pytest.mark.parametrize("window", [3, 5])
def test_single_voxel_is_the_correlation_of_its_neighbourhood(voxel, window):
    shape = (9, 8, 10)
    first, second = _images(shape, 1)
    cube = tuple(slice(max(0, n - window // 2), n + window // 2 + 1) for n in voxel)
    expected = np.corrcoef(first[0, 0][cube].flatten(), second[0, 0][cube].flatten())[0, 1] ** 2
    out = local_ncc(first, second, window, eps=1e-9, mask=_at(voxel, shape))
    assert out.item() == pytest.approx(expected, abs=1e-4)


def test_map_matches_monai_where_the_window_fits():
    shape = (12, 11, 13)
    first, second = _images(shape, 2)
    monai = -LocalNormalizedCrossCorrelationLoss(kernel_size=9, smooth_nr=0, smooth_dr=1e-6, reduction="none")(
        first, second
    )
    for voxel in [(4, 4, 4), (7, 6, 8), (5, 5, 6)]:
        out = local_ncc(first, second, eps=1e-9, mask=_at(voxel, shape))
        assert out.item() == pytest.approx(monai[(0, 0, *voxel)].item(), abs=1e-4)


def test_mask_weights_the_voxels():
    shape = (6, 7, 8)
    first, second = _images(shape, 3)
    here, there = (local_ncc(first, second, 3, mask=_at(v, shape)) for v in [(1, 2, 3), (4, 5, 6)])
    mask = 3 * _at((1, 2, 3), shape) + _at((4, 5, 6), shape)
    torch.testing.assert_close(local_ncc(first, second, 3, mask=mask), 0.75 * here + 0.25 * there)
    torch.testing.assert_close(local_ncc(first, second, 3, mask=torch.ones(1, 1, *shape)), local_ncc(first, second, 3))
    assert local_ncc(first, second, 3, mask=torch.zeros(1, 1, *shape)).item() == 0


def test_flat_images_score_nothing_with_a_finite_gradient():
    flat = torch.full((1, 1, 10, 10, 10), 0.6, requires_grad=True)
    out = local_ncc(flat, torch.full((1, 1, 10, 10, 10), 0.3))
    out.backward()
    assert out.item() == pytest.approx(0, abs=1e-6)
    assert flat.grad.isfinite().all()


def test_ascending_the_gradient_aligns_the_images():
    first, second = _images((8, 9, 10), 4)
    moving = first.clone().requires_grad_()
    before = local_ncc(moving, second, 5)
    (gradient,) = torch.autograd.grad(before, moving)
    step = 1e-3
    gain = local_ncc(first + step * gradient / gradient.norm(), second, 5) - before
    assert gain.item() == pytest.approx(step * gradient.norm().item(), rel=0.05)


def test_even_windows_and_unequal_shapes_are_rejected():
    with pytest.raises(ValueError, match="odd"):
        local_ncc(torch.zeros(1, 1, 6, 6, 6), torch.zeros(1, 1, 6, 6, 6), window=4)
    with pytest.raises(ValueError, match="shape"):
        local_ncc(torch.zeros(1, 1, 6, 6, 6), torch.zeros(1, 1, 6, 6, 7))


def test_force_is_the_gradient_by_a_displacement():
    """Against autograd through the warp, at zero displacement, inside the grid."""
    generator = torch.Generator().manual_seed(3)
    moving, fixed = (antialias(torch.rand(1, 1, 13, 14, 15, generator=generator), (3, 3, 3)) for _ in range(2))
    displacement = torch.zeros(1, 3, 13, 14, 15, requires_grad=True)
    # central differences of the image are the mean of the one-sided slopes that autograd sees
    both = sum(local_ncc(warp(moving, displacement + shift), fixed, 5) for shift in (1e-4, -1e-4))
    (gradient,) = torch.autograd.grad(both, displacement)
    inside = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    expected, found = gradient[inside].flatten(), ncc_force(moving, Correlation(fixed, 5), limit=1e9)[inside].flatten()
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.999


def test_each_image_of_a_batch_counts_alike_however_large_its_mask():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 2, 1, 8, 9, 7, generator=generator)
    mask = torch.zeros(2, 1, 8, 9, 7)
    mask[0], mask[1, :, 2:4] = 1, 1
    alone = [local_ncc(first[k : k + 1], second[k : k + 1], 3, mask=mask[k : k + 1]) for k in range(2)]
    assert abs(alone[0] - alone[1]) > 1e-3
    torch.testing.assert_close(local_ncc(first, second, 3, mask=mask), sum(alone) / 2)


@pytest.mark.parametrize("masked", [False, True])
def test_closed_forms_are_the_gradients_of_autograd(masked):
    generator = torch.Generator().manual_seed(5)
    first, second = torch.rand(2, 2, 1, 9, 8, 10, generator=generator)
    mask = (torch.rand(2, 1, 9, 8, 10, generator=generator) > 0.4).float() if masked else None
    image = first.clone().requires_grad_()
    (expected,) = torch.autograd.grad(local_ncc(image, second, 5, 1e-3, mask), image)
    found = Correlation(second, 5, 1e-3, mask).gradient(first)
    torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.abs().max()), rtol=1e-3)

    field = torch.randn(2, 3, 4, 5, 6, generator=generator).requires_grad_()
    (expected,) = torch.autograd.grad(gradient_energy(field), field)
    torch.testing.assert_close(roughness_gradient(field.detach()), expected)


def test_the_global_one_is_pearsons_of_each_image():
    pairs = [_images((5, 6, 7), seed) for seed in (1, 2)]
    first, second = (torch.cat(images) for images in zip(*pairs, strict=True))
    expected = np.mean([np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in pairs])
    assert global_ncc(first, second).item() == pytest.approx(expected, abs=1e-5)
    assert global_ncc(first, 0.2 - 3 * first).item() == pytest.approx(-1, abs=1e-5)
    assert global_ncc(first, torch.ones_like(first)).item() == pytest.approx(0, abs=1e-3)
