"""Velocities in template space as maps between images of their own spaces, against SimpleITK and closed forms."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from cortexgen.contracts import Space
from cortexgen.io import Grid, write_field, write_volume
from cortexgen.metrics.morphometry import regional_volumes, volume_weights
from cortexgen.registration import propagation
from cortexgen.registration.measures import registration_measures as measure
from cortexgen.registration.propagation import Propagation
from cortexgen.spatial import antialias, compose, folded, integrate, invert, log_jacobian, unfold

MODEL = Grid((25, 29, 25), np.array([[0.0, 0, 4, -48], [0, 4, 0, -56], [4, 0, 0, -48], [0, 0, 0, 1]]))
FINE = Grid((49, 57, 49), np.array([[0.0, 0, 2, -48], [0, 2, 0, -56], [2, 0, 0, -48], [0, 0, 0, 1]]))


def affine() -> torch.Tensor:
    """A turn of 0.2 about z, scales, and a shift of some millimetres."""
    c, s = np.cos(0.2), np.sin(0.2)
    out = np.eye(4)
    out[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([1.1, 0.95, 1.05])
    out[:3, 3] = [4, -7, 3]
    return torch.from_numpy(out)


def native() -> Grid:
    """An LAS grid of 1.7 x 1.9 x 2.2 mm, somewhat oblique."""
    tilt = np.eye(4)
    tilt[:3, :3] = [[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]]
    base = np.array([[0.0, 0, 1.7, -60], [0, 1.9, 0, -75], [2.2, 0, 0, -60], [0, 0, 0, 1]])
    return Grid((55, 70, 70), tilt @ base, "LAS")


def velocity(scale: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(1, 3, *MODEL.shape, generator=torch.Generator().manual_seed(seed))
    return scale * antialias(noise, (6, 6, 6)) / antialias(noise, (6, 6, 6)).std()


def world_positions(grid: Grid) -> torch.Tensor:
    index = torch.stack(torch.meshgrid(*(torch.arange(n).double() for n in grid.shape), indexing="ij"))
    world = torch.einsum("ij,jdhw->idhw", grid.torch_affine[:3, :3], index)
    return world + grid.torch_affine[:3, 3].view(3, 1, 1, 1)


def spaces() -> tuple[Space, Space]:
    world = world_positions(FINE)
    distance = torch.linalg.vector_norm(world, dim=0, keepdim=True)
    labels = (distance < 36).long() + (distance < 20).long()
    image = ((torch.sin(world[0] / 7) + torch.cos(world[1] / 9) + 2)[None] / 4 * (distance < 40)).float()
    moving = Space("T", image, labels, FINE, FINE, torch.eye(4, dtype=torch.float64))
    grid = native()
    fixed = Space("T1w", torch.zeros(1, *grid.shape), None, grid, grid, affine())
    return moving, fixed


def test_forward_and_inverse_are_each_others(tmp_path):
    """Applied by SimpleITK: template point -> native -> template, through the written files."""
    moving, fixed = spaces()
    maps = Propagation(moving, fixed, MODEL, 7)
    result = maps.run(velocity(0.8))
    assert result.folded == 0 and result.unfolding == 0
    transforms = []
    for name, field, grid in (("f", result.displacement, fixed.grid), ("i", result.inverse, moving.grid)):
        write_field(tmp_path / f"{name}.nii.gz", field[0], grid)
        image = sitk.Cast(sitk.ReadImage(str(tmp_path / f"{name}.nii.gz")), sitk.sitkVectorFloat64)
        transforms.append(sitk.DisplacementFieldTransform(image))
    forward, inverse = transforms
    points = np.random.default_rng(0).uniform(-30, 30, (200, 3))
    back = np.array([forward.TransformPoint(inverse.TransformPoint(p)) for p in points.tolist()])
    assert np.linalg.norm(back - points, axis=1).mean() < 0.15  # mm; both fields are interpolated
    # And the affine is in it: without the flow, a template point goes where the affine takes it.
    plain = maps.backward(torch.zeros(1, 3, *MODEL.shape))
    write_field(tmp_path / "a.nii.gz", plain[0], moving.grid)
    image = sitk.Cast(sitk.ReadImage(str(tmp_path / "a.nii.gz")), sitk.sitkVectorFloat64)
    linear = sitk.DisplacementFieldTransform(image)
    lps = np.diag([-1.0, -1, 1])
    for p in points[:20]:
        expected = lps @ (affine().numpy()[:3, :3] @ (lps @ p) + affine().numpy()[:3, 3])
        np.testing.assert_allclose(linear.TransformPoint(p.tolist()), expected, atol=1e-3)


def test_simpleitk_warps_the_moving_image_alike(tmp_path):
    moving, fixed = spaces()
    result = Propagation(moving, fixed, MODEL, 7).run(velocity(0.8))
    write_volume(tmp_path / "m.nii.gz", moving.image, moving.grid)
    write_volume(tmp_path / "r.nii.gz", result.warped, fixed.grid)
    write_field(tmp_path / "f.nii.gz", result.displacement[0], fixed.grid)
    field = sitk.Cast(sitk.ReadImage(str(tmp_path / "f.nii.gz")), sitk.sitkVectorFloat64)
    ours, image = (sitk.ReadImage(str(tmp_path / f"{n}.nii.gz")) for n in "rm")
    theirs = sitk.Resample(image, ours, sitk.DisplacementFieldTransform(field), sitk.sitkLinear, 0.0)
    difference = sitk.GetArrayFromImage(theirs) - sitk.GetArrayFromImage(ours)
    assert np.abs(difference).max() < 1e-3 and sitk.GetArrayFromImage(ours).max() > 0.5


def test_label_volumes_are_the_integral_of_the_jacobian():
    """Two ways to a region's volume: summed probabilities in the image, det(affine) ∫ |J exp(-v)| over the template."""
    moving, fixed = spaces()
    v = velocity(1.0, seed=3)
    result = Propagation(moving, fixed, MODEL, 7).run(v)
    weights = volume_weights(moving.labels, FINE, MODEL, 3)
    integral = regional_volumes(v, weights, MODEL.voxel_volume)[0] * torch.linalg.det(affine())
    plain = torch.bincount(moving.labels.flatten()) * FINE.voxel_volume / 1000
    assert ((integral / plain - 1).abs()[1:] > 0.02).all()  # the field does change them
    torch.testing.assert_close(result.volumes[1:], integral[1:], rtol=0.01, atol=0)
    nearest = Propagation(moving, fixed, MODEL, 7).run(v, nearest=True)
    agree = (nearest.labels == result.labels)[result.labels > 0].float().mean()
    assert 0.9 < agree < 1


def test_folds_are_smoothed_away_on_every_grid():
    moving, fixed = spaces()
    maps = Propagation(moving, fixed, MODEL, 7)
    v = velocity(1.0)
    v[:, 0, 10:12, 12:14, 10:12] += 9
    v[:, 0, 10:12, 14:16, 10:12] -= 9
    assert int(folded(integrate(v))) + int(folded(maps.forward(v))) > 0
    result = maps.run(v)
    assert result.unfolding > 0 and result.folded == 0
    for field in (result.displacement, result.inverse, integrate(result.velocity), integrate(-result.velocity)):
        assert int(folded(field)) == 0
    far = (slice(None), slice(None), slice(20, None))
    assert torch.equal(result.velocity[far], v[far])


def test_a_displacement_goes_back_by_its_inverse():
    """The paper's: inverse, growth and volumes are those of the way back, not those of the negative displacement."""
    moving, fixed = (replace(space, grid=MODEL, affine=torch.eye(4, dtype=torch.float64)) for space in spaces())
    maps, u = Propagation(moving, fixed, MODEL, 0), integrate(velocity(0.8, seed=1))
    result = maps.run(u)
    assert result.unfolding == 0
    torch.testing.assert_close(result.displacement, u, atol=1e-5, rtol=0)
    inverse = invert(u)
    torch.testing.assert_close(result.inverse, inverse, atol=1e-5, rtol=0)
    assert compose(u, result.inverse).abs().max() < 1e-5 < compose(u, -u).abs().max() / 1e4
    torch.testing.assert_close(result.log_jacobian, log_jacobian(inverse), atol=1e-5, rtol=0)
    integral = regional_volumes(u, volume_weights(moving.labels, FINE, MODEL, 3), MODEL.voxel_volume, 0)[0]
    torch.testing.assert_close(result.volumes[1:], integral[1:], rtol=0.015, atol=0)


def test_growth_leaves_the_affine_out():
    moving, fixed = spaces()
    still = Propagation(moving, fixed, MODEL, 7).run(torch.zeros(1, 3, *MODEL.shape))
    assert still.log_jacobian.abs().max() < 1e-4
    scale = torch.linalg.det(affine()).item()
    assert (still.volumes[1:].sum() / (spaces()[0].labels > 0).sum() / 8 * 1000).item() == pytest.approx(
        scale, rel=0.01
    )


@pytest.fixture
def integrations(monkeypatch):
    """Every velocity that is integrated."""
    seen = []

    def integrated(v, steps=7, inverse=False):
        seen.append(-v if inverse else v)
        return integrate(v, steps, inverse)

    monkeypatch.setattr(propagation, "integrate", integrated)
    return seen


def test_a_pair_is_integrated_once_each_way(integrations):
    moving, fixed = spaces()
    fixed = dataclasses.replace(fixed, image=sample_image(fixed))
    maps, v = Propagation(moving, fixed, MODEL, 7), velocity(0.8)
    result = maps.run(v)
    row = measure(result)
    assert result.unfolding == 0 and row["ssim"] != row["ssim_before"]
    assert [float((seen - sign * v).abs().max()) for seen, sign in zip(integrations, (1, -1), strict=True)] == [0, 0]
    # What is kept is what integrating anew gives.
    assert torch.equal(result.displacement, maps.forward(v)) and torch.equal(result.inverse, maps.backward(v))
    still = torch.zeros_like(v)
    assert torch.equal(maps.still(), maps.forward(still))


def test_a_pair_that_folds_is_integrated_once_each_way_a_round(integrations):
    maps, v = Propagation(*spaces(), MODEL, 7), velocity(1.0)
    v[:, 0, 10:12, 12:14, 10:12] += 9
    result = maps.run(v)
    assert result.unfolding > 0 and len(integrations) == 2 * (result.unfolding + 1)
    assert torch.equal(result.displacement, maps.forward(result.velocity))
    assert torch.equal(result.log_jacobian, maps.log_jacobian(maps.flow(result.velocity, back=True)))


def test_one_that_folds_to_the_end_is_what_its_last_velocity_gives(monkeypatch):
    maps, v = Propagation(*spaces(), MODEL, 7), velocity(1.0)
    v[:, 0, 10:12, 12:14, 10:12] += 40
    monkeypatch.setattr(propagation, "unfold", lambda v, trouble, rounds: unfold(v, trouble, rounds=0))
    result = maps.run(v)
    assert result.unfolding == -1 and result.folded > 0 and not torch.equal(result.velocity, v)
    assert torch.equal(result.displacement, maps.forward(result.velocity))
    assert torch.equal(result.inverse, maps.backward(result.velocity))


def sample_image(space: Space) -> torch.Tensor:
    """Something with contrast on a space's grid."""
    world = world_positions(space.grid)
    return ((torch.cos(world[0] / 8) + torch.sin(world[2] / 6) + 2)[None] / 4).float()
