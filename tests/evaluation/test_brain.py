"""A brain's anatomy in numbers, on shapes whose numbers are known."""

import math

import numpy as np
import pytest
import torch

from cortexgen.errors import UserError
from cortexgen.evaluation.brain import (
    collect,
    contrast,
    intracranial_mask,
    measure_brain,
    noise_level,
    present_classes,
    sharpness,
)
from cortexgen.io import Grid

CLASSES = {0: "Unknown", 1: "Cerebral-White-Matter", 2: "Cerebral-Cortex", 3: "Thalamus"}
SIZE = 2.0


def _grid(n: int = 41) -> Grid:
    """Symmetric about x = 0, W along x, 2 mm."""
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = SIZE, SIZE, SIZE, 1
    affine[:3, 3] = -SIZE * (n - 1) / 2
    return Grid((n, n, n), affine)


def _radius(grid: Grid, centre: tuple[float, float, float] = (0, 0, 0)) -> torch.Tensor:
    """Distance in mm from a place (x, y, z)."""
    steps = [torch.arange(n, dtype=torch.float64) * SIZE + grid.affine[2, 3] for n in grid.shape]
    z, y, x = torch.meshgrid(*steps, indexing="ij")
    return ((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2).sqrt()[None]


def test_volumes_sides_and_place_of_a_ball() -> None:
    grid = _grid()
    ball = _radius(grid, (8.0, -4.0, 2.0)) <= 20
    found = measure_brain(ball.float(), 3 * ball.long(), CLASSES, grid)
    assert found["volumes"][3] == pytest.approx(4 / 3 * math.pi * 20**3 / 1000, rel=0.01)
    assert found["left"][3] == pytest.approx(float(found["volumes"][3]) / 2, rel=1e-6)  # of its own middle
    assert found["icv"] == pytest.approx(float(found["volumes"][3]), rel=0.03)
    assert found["centroid"].tolist() == pytest.approx([8, -4, 2], abs=1e-6)
    assert np.isnan(found["cortex"]).all()  # there is none


def test_the_mask_encloses_ventricles_and_sulci() -> None:
    grid = _grid()
    r = _radius(grid)
    ball = r <= 30
    labels = torch.where(ball & (r > 10), 2, 0)
    labels[:, 19:22, :, :20] = 0  # a fissure of 6 mm
    mask = intracranial_mask(labels, grid.spacing)
    assert float(mask.sum() / ball.sum()) == pytest.approx(1, abs=0.02)
    assert not mask[r > 32].any()
    edge = torch.zeros(1, 41, 41, 41, dtype=torch.int64)
    edge[:, :20] = 1  # a brain that the grid cuts
    assert torch.equal(intracranial_mask(edge, grid.spacing), edge > 0)


def test_the_noise_level_is_that_of_the_noise() -> None:
    grid = _grid()
    r = _radius(grid)
    smooth = (0.7 - 0.3 * (r / 30) ** 2).float()
    noise = torch.randn(r.shape, generator=torch.Generator().manual_seed(0))
    for sd in (0.02, 0.1):
        assert noise_level(smooth + sd * noise, r <= 30) == pytest.approx(sd, rel=0.05)
    assert noise_level(smooth, r <= 30) < 0.001


def test_cortex_of_a_shell() -> None:
    grid = _grid()
    r = _radius(grid)
    labels = torch.where(r <= 20, 1, torch.where(r <= 26, 2, 0))
    found = measure_brain((r <= 26).float(), labels, CLASSES, grid)
    thickness, white, pial = found["cortex"][:3]
    assert thickness == pytest.approx(6, abs=0.4)
    assert white == pytest.approx(4 * math.pi * 20**2, rel=0.06)
    assert pial == pytest.approx(4 * math.pi * 26**2, rel=0.06)


def test_contrast_to_noise_is_that_of_two_samples() -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 4, (1, 20, 20, 20)))
    means = torch.tensor([0.0, 0.9, 0.6, 0.7])
    image = means[labels] + 0.1 * torch.from_numpy(rng.normal(size=labels.shape)).float()
    names = ["Unknown", "Left-Cerebral-White-Matter", "Left-Cerebral-Cortex", "x"]
    assert contrast(image, labels, names) == pytest.approx(0.3 / math.sqrt(2 * 0.01), rel=0.05)
    assert math.isnan(contrast(image, labels, ["Unknown", "a", "b", "c"]))


def test_sharpness_is_the_width_of_the_edge_whatever_the_noise() -> None:
    grid, names = _grid(), list(CLASSES.values())
    r = _radius(grid)
    labels = torch.where(r <= 24, 1, torch.where(r <= 36, 2, 0))
    noise = torch.randn(r.shape, generator=torch.Generator().manual_seed(0))
    for width in (8.0, 16.0):  # of a linear edge in mm, wider than two voxels
        image = 0.6 + 0.3 * ((24 + width / 2 - r) / width).clamp(0, 1)
        means = [image[labels == k].double().mean() for k in (1, 2)]
        expected = 0.3 / width / float(means[0] - means[1])
        assert sharpness(image, labels, names, grid.spacing) == pytest.approx(expected, rel=0.04)
        assert sharpness(image + 0.05 * noise, labels, names, grid.spacing) == pytest.approx(expected, rel=0.05)
    assert math.isnan(sharpness(image, labels.clamp(max=1), names, grid.spacing))


def test_asymmetry_from_sides_and_from_classes() -> None:
    """The middle is that of all labels, wherever the brain lies."""
    grid = _grid()
    for place in (0.0, 3.0):
        brain, ball = _radius(grid, (place, 0, 0)) <= 30, _radius(grid, (place - 12, 0, 0)) <= 8
        labels = torch.where(ball, 3, torch.where(brain, 1, 0))
        found = collect({0: measure_brain(brain.float(), labels, CLASSES, grid)}, CLASSES, [1, 3])
        whole, ball_volume = 4 / 3 * math.pi * 30**3, 4 / 3 * math.pi * 8**3
        assert found.asymmetry[0].tolist() == pytest.approx([-ball_volume / (whole - ball_volume), 1], abs=0.01)
    by_class = {0: "Unknown", 1: "Left-Thalamus", 2: "Right-Thalamus", 3: "Brain-Stem"}
    labels = torch.where(_radius(grid, (-20.0, 0, 0)) <= 10, 1, torch.where(_radius(grid, (20.0, 0, 0)) <= 14, 2, 0))
    two = collect({0: measure_brain((labels > 0).float(), labels, by_class, grid)}, by_class, [1, 2, 3])
    assert float(two.asymmetry) == pytest.approx((1000 - 2744) / 3744, rel=0.05)


def test_sets_have_the_same_columns_whatever_labels_they_have() -> None:
    grid = _grid(21)
    ball = _radius(grid) <= 10
    measured = {4: measure_brain(ball.float(), 7 * ball.long(), None, grid)}
    measured[9] = measure_brain(ball.float(), 2 * ball.long(), None, grid)
    assert present_classes(measured) == [2, 7]
    found = collect(measured, None, [2, 7])
    assert found.index == [4, 9]
    assert found.regions == ["label-2", "label-7"]
    assert (found.volumes > 0).tolist() == [[False, True], [True, False]]


def test_an_empty_label_map_is_refused() -> None:
    grid = _grid(11)
    with pytest.raises(UserError, match="label map is empty"):
        measure_brain(torch.zeros(1, *grid.shape), torch.zeros(1, *grid.shape, dtype=torch.int64), CLASSES, grid)
