import io

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from cortexgen.figures import synthesis, write_png
from cortexgen.io import Grid

SHAPE, SPACING = (20, 30, 40), (3.0, 2.0, 1.0)
GRID = Grid(SHAPE, np.array([[0, 0, 1.0, -20], [0, 2, 0, -30], [3, 0, 0, -30], [0, 0, 0, 1]]), "LAS")


def _brain():
    """Darker to the left, posterior and inferior."""
    d, h, w = torch.meshgrid(*[torch.linspace(0, 1, n) for n in SHAPE], indexing="ij")
    volume = torch.zeros(SHAPE)
    volume[2:19, 3:28, 3:37] = (0.2 + 0.2 * d + 0.2 * h + 0.3 * w)[2:19, 3:28, 3:37]
    return volume


def _given(steps=(200, 120, 40)):
    fixed, generator = _brain(), torch.Generator().manual_seed(0)
    states = [(t, fixed + t / 1000 * torch.randn(SHAPE, generator=generator)) for t in steps]
    return fixed.roll(2, 2), fixed, states, fixed + 0.1 * (fixed > 0.6)


def _panels(figure):
    """`[column, plane]`: a plane's panels follow each other."""
    return np.array(figure.axes[: 3 * (len(figure.axes) // 3)]).reshape(3, -1).T


def test_columns_follow_the_reverse_diffusion():
    moving, fixed, states, result = _given()
    figure = synthesis(moving, fixed, states, result, GRID, title="sub-01")
    names = ["Moving", "Start, t = 200", "t = 120", "t = 40", "Result", "Fixed", "|Result − fixed|"]
    at = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert [at[name] for name in names] == sorted(at[name] for name in names) and "sub-01" in at

    panels, middle = _panels(figure), (10, 15, 19)
    volumes = [moving, *(x for _, x in states), result, fixed, (result - fixed).abs()]
    assert panels.shape == (7, 3)
    for column, volume in zip(panels, volumes, strict=True):
        for axis, axes in enumerate(column):
            shown = axes.images[0].get_array()
            candidates = [volume.select(axis, middle[axis] + k).numpy() for k in (-1, 0, 1)]
            assert any(np.array_equal(shown, cut) for cut in candidates)
    assert len({axes.images[0].get_clim() for axes in panels[:-1].flat}) == 1
    assert panels[-1, 0].images[0].get_clim() == pytest.approx((0, 0.1), abs=1e-6)


def test_pixels_are_physical_and_the_right_way_up(tmp_path):
    moving, fixed, states, result = _given()
    write_png(tmp_path / "a.png", synthesis(moving, fixed, states, result, GRID))
    pixels = imread(io.BytesIO((tmp_path / "a.png").read_bytes()))[..., :3].mean(axis=-1)
    panels, scales = _panels(synthesis(moving, fixed, states, result, GRID)), []
    for axes, (rows, columns) in zip(panels[-2], ((1, 2), (0, 2), (0, 1)), strict=True):
        box, (height, width) = axes.get_position(), pixels.shape
        shown = pixels[
            round((1 - box.y1) * height) : round((1 - box.y0) * height), round(box.x0 * width) : round(box.x1 * width)
        ]
        y, x = np.nonzero(shown > 0.15)
        scales += [
            np.ptp(y) / ((17, 25, 34)[rows] * SPACING[rows]),
            np.ptp(x) / ((17, 25, 34)[columns] * SPACING[columns]),
        ]
        brain = shown[y.min() : y.max(), x.min() : x.max()]
        upper, lower = np.array_split(brain, 2, axis=0)
        left, right = np.array_split(brain, 2, axis=1)
        assert upper.mean() > 1.1 * lower.mean() and right.mean() > 1.1 * left.mean()
    np.testing.assert_allclose(scales, np.mean(scales), rtol=0.04)


def test_the_same_images_give_the_same_file_and_nothing_else(tmp_path):
    for name in ("a", "b"):
        write_png(tmp_path / name / "s.png", synthesis(*_given(steps=(200,)), GRID))
        assert [path.name for path in (tmp_path / name).iterdir()] == ["s.png"]
    assert (tmp_path / "a/s.png").read_bytes() == (tmp_path / "b/s.png").read_bytes()


def test_what_does_not_fit_is_refused_and_empty_images_are_drawn():
    moving, fixed, _, result = _given()
    with pytest.raises(ValueError, match="no states"):
        synthesis(moving, fixed, [], result, GRID)
    with pytest.raises(ValueError, match="expected shape"):
        synthesis(moving, fixed, [(9, fixed[1:])], result, GRID)
    nothing = torch.zeros(1, *SHAPE)
    assert len(synthesis(nothing, nothing, [(1, nothing)], nothing, GRID).axes) == 16
