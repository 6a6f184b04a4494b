"""The inverse of a displacement against matrices, closed forms, scipy and SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import map_coordinates

from cortexgen.spatial import antialias, compose, folded, integrate, invert, jacobian_determinant, sample, warp
from cortexgen.spatial.warp import identity

INNER = (..., slice(5, -5), slice(5, -5), slice(5, -5))
SHEAR = np.array([[1.1, 0.1, 0.0], [0.0, 0.95, -0.12], [0.05, 0.0, 1.0]])
SHAPE = (24, 28, 22)


def residual(displacement, inverse):
    """Largest |u(p + w) + w| in voxels, with scipy's interpolation in float64."""
    u, w = displacement[0].double().numpy(), inverse[0].double().numpy()
    places = np.indices(w.shape[1:]) + w
    return max(np.abs(map_coordinates(c, places, order=1, mode="nearest") + d).max() for c, d in zip(u, w, strict=True))


def steep(smoothing, seed):
    """A displacement just short of folding, far from a contraction."""
    noise = antialias(torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(seed)), (smoothing,) * 3)
    strength = 6 / noise.std()
    while folded(u := integrate(strength * noise)).any():
        strength *= 0.95
    return u


def test_inverse_of_an_affine_field_is_that_of_the_matrix(linear_field):
    shape, eye = (19, 17, 21), np.eye(3)
    out = invert(linear_field(SHEAR - eye, shape))
    torch.testing.assert_close(out[INNER], linear_field(np.linalg.inv(SHEAR) - eye, shape)[INNER], atol=1e-5, rtol=0)


@pytest.mark.parametrize("peak", [2.5, 3.4])  # slopes down to -0.67 and -0.91
def test_inverse_along_one_axis_is_that_of_the_piecewise_linear_map(peak):
    x = np.arange(24.0)
    u = peak * np.sin(2 * np.pi * x / 23)
    expected = np.interp(x, x + u, x) - x
    field = torch.zeros(1, 3, 4, 24, 5)
    field[:, 1] = torch.from_numpy(u).view(1, 1, -1, 1)
    out = invert(field)
    np.testing.assert_allclose(out[0, 1, 2, :, 2], expected, atol=1e-5)
    assert not out[:, [0, 2]].any()


@pytest.mark.parametrize("smoothing", [2, 4, 12])
def test_what_does_not_fold_is_inverted_exactly_however_steep(smoothing):
    u = steep(smoothing, seed=int(smoothing))
    plain = torch.zeros_like(u)
    for _ in range(50):
        plain = -warp(u, plain)
    assert residual(u, -u) > 0.1 and residual(u, plain) > 1e-3
    assert residual(u.double(), invert(u.double())) < 1e-8
    inverse = invert(u)
    assert inverse.dtype == torch.float32 and residual(u, inverse) < 2e-6


def test_stretches_shears_and_turns_beyond_a_contraction(linear_field):
    for matrix in (np.diag([3.0, 0.2, 1.0]), np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])):
        u = linear_field(matrix - np.eye(3), SHAPE).double()
        assert residual(u, invert(u)) < 1e-8


def test_simpleitk_inverts_alike(smooth):
    u = smooth(3, SHAPE, 3, 2.0)
    image = sitk.GetImageFromArray(u[0].flip(0).movedim(0, -1).double().numpy(), isVector=True)
    theirs = sitk.InvertDisplacementField(image, 200, 1e-6, 1e-7, False)
    theirs = torch.from_numpy(sitk.GetArrayFromImage(theirs)).movedim(-1, 0).flip(0)[None]
    difference = (invert(u) - theirs)[INNER].abs().max()
    assert difference < 1e-3 < (-u - theirs)[INNER].abs().max() / 100


def test_its_jacobian_is_the_reciprocal_at_the_mapped_points(smooth):
    u = smooth(3, (30, 32, 34), 5, 5.0)
    inverse = invert(u)
    there = sample(jacobian_determinant(u), identity(u.shape[2:]) + inverse)
    product = (jacobian_determinant(inverse) * there)[INNER]
    assert (product - 1).abs().max() < 0.05 < (jacobian_determinant(-u) * there - 1)[INNER].abs().max() / 5


def test_folds_still_get_an_answer(smooth):
    u = smooth(3, (14, 12, 16), 2, 6.0)
    assert folded(u) > 100
    out = invert(u)
    assert out.isfinite().all() and out.abs().max() <= u.abs().max() + 1e-4  # w is a value of -u


def test_a_batch_is_inverted_one_by_one_and_a_guess_is_a_start(smooth):
    u = torch.cat([smooth(3, SHAPE, 3, 2.0), smooth(3, SHAPE, 3, 2.0)])
    both = invert(u)
    assert torch.equal(both[1:], invert(u[1:]))
    torch.testing.assert_close(invert(u, guess=torch.zeros_like(u)), both, atol=1e-6, rtol=0)
    assert torch.equal(invert(u, guess=both, iterations=0), both)


def test_its_gradient_is_the_implicit_functions(smooth):
    u, push = smooth(3, (12, 14, 11), 2, 1.5).double(), smooth(3, (12, 14, 11), 1, 1.0).double()
    weights = smooth(3, (12, 14, 11), 1, 1.0).double()
    leaf = u.clone().requires_grad_()
    out = invert(leaf)
    assert torch.equal(out.detach(), invert(u))
    (out * weights).sum().backward()
    step = 1e-6
    numeric = ((invert(u + step * push) - invert(u - step * push)) * weights).sum() / (2 * step)
    assert float((leaf.grad * push).sum()) == pytest.approx(float(numeric), rel=1e-3)


def test_integrate_gives_the_inverse_of_velocities_and_displacements(smooth):
    v = smooth(3, SHAPE, 3, 2.0)
    assert torch.equal(integrate(v, 7, inverse=True), integrate(-v, 7))
    assert torch.equal(integrate(v, 0, inverse=True), invert(v))
    assert compose(v, integrate(v, 0, inverse=True)).abs().max() < 1e-5
