import numpy as np
import pytest
import torch

from cortexgen.figures import deformed_grid, log_jacobian_map, registration, to_png
from cortexgen.figures.colours import GROWTH
from cortexgen.io import Grid

SHAPE, SPACING = (20, 30, 40), (3.0, 2.0, 1.0)
GRID = Grid(SHAPE, np.array([[0, 0, 1.0, -20], [0, 2, 0, -30], [3, 0, 0, -30], [0, 0, 0, 1]]), "RAS")


def _brain():
    volume = torch.zeros(SHAPE)
    volume[3:17, 4:26, 4:36] = 0.8
    return volume


def _lines(axes):
    """Vertical and horizontal lines as arrays of points."""
    return [[part for path in c.get_paths() for part in path.to_polygons(closed_only=False)] for c in axes.collections]


def test_lines_are_straight_without_displacement():
    figure = deformed_grid(torch.zeros(3, *SHAPE), GRID, every=5)
    vertical, horizontal = _lines(figure.axes[0])
    assert sorted(round(line[0, 0]) for line in vertical) == list(range(4, 39, 5))
    assert all(np.ptp(line[:, 0]) < 1e-6 for line in vertical) and all(np.ptp(line[:, 1]) < 1e-6 for line in horizontal)
    gaps = np.diff(sorted(line[0, 1] for line in horizontal))
    assert np.allclose(gaps, 5)


def test_lines_show_the_pull_back():
    """warped(p) = moving(p + u): what lay at x in the moving image appears at x - u."""
    displacement = torch.zeros(3, *SHAPE)
    displacement[2] = 2.0
    axial, coronal, sagittal = (_lines(axes) for axes in deformed_grid(displacement, GRID, every=5).axes)
    for vertical, _ in (axial, coronal):
        assert {round(line[0, 0]) % 5 for line in vertical} == {2}
    still = [_lines(axes) for axes in deformed_grid(torch.zeros(3, *SHAPE), GRID, every=5).axes]
    assert all(np.allclose(a, b) for a, b in zip(sagittal[0], still[2][0], strict=True))


def test_log_jacobian_is_symmetric_masked_and_signed():
    log_jacobian = torch.full(SHAPE, 5.0)
    log_jacobian[3:17, 4:26, 4:36] = 0.2
    log_jacobian[3:10] = -0.3
    figure = log_jacobian_map(log_jacobian, _brain(), GRID)
    overlay = figure.axes[0].images[1]
    assert overlay.get_clim() == (-0.3, 0.3)
    assert np.asarray(overlay.get_array())[0, 0] == 0
    blue, clear, red = GROWTH([0.0, 0.5, 1.0])
    assert blue[2] > blue[0] and red[0] > red[2] and clear[3] < 0.05
    assert log_jacobian_map(log_jacobian, _brain(), GRID, limit=0.1).axes[0].images[1].get_clim() == (-0.1, 0.1)
    assert log_jacobian_map(torch.zeros(SHAPE), torch.zeros(SHAPE), GRID).axes[0].images[1].get_clim() == (-0.05, 0.05)


def test_registration_shows_every_item_on_shared_scales():
    moving = _brain()
    displacement = torch.zeros(1, 3, *SHAPE)
    figure = registration(moving[None], moving.roll(2, 2), moving.roll(1, 2), displacement, moving * 0, GRID, title="a")
    panels = np.array(figure.axes[:21]).reshape(3, 7)
    for columns in ((0, 1, 2), (3, 4)):
        assert len({axes.images[0].get_clim() for axes in panels[:, columns].flat}) == 1
    assert panels[0, 4].images[0].get_array().sum() < panels[0, 3].images[0].get_array().sum()
    assert {"Moving", "Fixed", "Warped", "|Fixed − warped|", "Deformed grid", "log |J|", "a"} <= {
        text.get_text() for text in figure.texts
    }
    assert to_png(figure, 40) == to_png(figure, 40)
    with pytest.raises(ValueError, match="expected shape"):
        registration(moving, moving, moving, displacement[:, :2], moving, GRID)
