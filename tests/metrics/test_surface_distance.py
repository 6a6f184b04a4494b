import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from cortexgen.metrics.surface_distance import hd95


def ball(centre, radius, shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0)):
    grid = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    return torch.from_numpy((np.linalg.norm(grid - centre, axis=-1) <= radius).astype(np.int64))[None]


def blobs(seed, classes=4, shape=(22, 26, 19)):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((classes, *shape)), (0, 3, 3, 3))
    return torch.from_numpy(noise.argmax(axis=0))[None]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.5, 3.0)])
def test_it_is_monais(spacing):
    a, b = blobs(0), blobs(1)
    one_hot = [torch.nn.functional.one_hot(x[0], 4).permute(3, 0, 1, 2)[None].float() for x in (a, b)]
    expected = compute_hausdorff_distance(*one_hot, include_background=False, percentile=95, spacing=spacing)[0]
    np.testing.assert_allclose(hd95(a, b, 4, spacing), expected, rtol=1e-5)
    torch.testing.assert_close(hd95(a, b, 4, spacing), hd95(b, a, 4, spacing))


def test_balls_of_one_centre_are_apart_by_the_difference_of_their_radii():
    assert hd95(ball((20, 20, 20), 14), ball((20, 20, 20), 9), 2, (1, 1, 1)).item() == pytest.approx(5, abs=0.6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shifted_ball_in_millimetres(axis):
    """The distance of a point at angle θ to the sphere shifted by s is |s cos θ| (s << r); cos θ is uniform."""
    shape, spacing, shift = (80, 40, 40), (0.5, 1.0, 1.0), np.zeros(3)
    shift[axis] = 4
    a, b = (ball(np.array([20, 20, 20]) + s, 12, shape, spacing) for s in (0, shift))
    assert hd95(a, b, 2, spacing).item() == pytest.approx(0.95 * 4, abs=0.3)


def test_identical_maps_are_0_and_empty_classes_nan():
    a, b = blobs(0), blobs(1)
    assert hd95(a, a, 4, (1, 1, 1)).tolist() == [0, 0, 0]
    b[b == 2] = 0
    assert hd95(a, b, 6, (1, 1, 1)).isnan().tolist() == [False, True, False, True, True]


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="differ in shape"):
        hd95(blobs(0), blobs(0)[:, 1:], 4, (1, 1, 1))
