import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from cortexgen.figures import cohort, slices, to_png
from cortexgen.figures.colours import class_colour
from cortexgen.figures.planes import View, array
from cortexgen.io import Grid, read_volume, write_volume

SHAPE, SPACING = (20, 30, 40), (3.0, 2.0, 1.0)
BLOB = (16, 24, 6)


def _grid(codes="RAS", spacing=SPACING):
    affine = np.array([[0, 0, spacing[2], -20], [0, spacing[1], 0, -30], [spacing[0], 0, 0, -30], [0, 0, 0, 1]])
    return Grid(SHAPE, affine.astype(float), codes)


def _brain(blob=True):
    """A grey box with a bright blob at its left, anterior, superior corner."""
    volume = torch.zeros(SHAPE)
    volume[2:19, 3:28, 3:37] = 0.4
    if blob:
        d, h, w = BLOB
        volume[d - 2 : d + 3, h - 2 : h + 3, w - 2 : w + 3] = 1.0
    return volume


def _panel(figure, axes, dpi=100):
    """The rendered pixels of axes, top row first, brightness in [0, 1]."""
    pixels = imread(io.BytesIO(to_png(figure, dpi)))[..., :3].mean(axis=-1)
    box = axes.get_position()
    height, width = pixels.shape
    rows = slice(round((1 - box.y1) * height), round((1 - box.y0) * height))
    return pixels[rows, round(box.x0 * width) : round(box.x1 * width)]


def _centroid(panel):
    rows, columns = np.nonzero(panel > 0.96)
    return rows.mean() / panel.shape[0], columns.mean() / panel.shape[1]


def test_left_is_left_and_anterior_and_superior_are_up():
    figure = slices(_brain(), _grid(), positions=BLOB)
    axial, coronal, sagittal = (_centroid(_panel(figure, axes)) for axes in figure.axes)
    assert axial[0] < 0.35 and axial[1] < 0.35
    assert coronal[0] < 0.35 and coronal[1] < 0.35
    assert sagittal[0] < 0.35 and sagittal[1] > 0.65


def test_letters_name_the_sides():
    figure = slices(_brain(), _grid())
    for axes, expected in zip(figure.axes, ("LRPA", "LRIS", "PAIS"), strict=True):
        at = {text.get_text(): text.get_position() for text in axes.texts}
        left, right, bottom, top = expected
        assert at[left][0] < 0.1 < 0.9 < at[right][0] and at[bottom][1] < 0.1 < 0.9 < at[top][1]


@pytest.mark.parametrize("codes", ["LPI", "ASR"])
def test_picture_does_not_depend_on_the_orientation_of_the_file(tmp_path, codes):
    grid = _grid(codes)
    write_volume(tmp_path / "a.nii.gz", _brain()[None], grid)
    volume, read = read_volume(tmp_path / "a.nii.gz")
    assert read.codes == codes
    assert to_png(slices(volume, read, positions=BLOB), 60) == to_png(slices(_brain(), _grid(), positions=BLOB), 60)


def test_aspect_is_physical_and_voxels_are_whole():
    figure = slices(_brain(), _grid())
    figure.canvas.draw()
    for axes, (rows, columns) in zip(figure.axes, ((1, 2), (0, 2), (0, 1)), strict=True):
        left, right, bottom, top = axes.images[0].get_extent()
        assert (left, bottom) == (-SPACING[columns] / 2, -SPACING[rows] / 2)
        assert right - left == SHAPE[columns] * SPACING[columns] and top - bottom == SHAPE[rows] * SPACING[rows]
        origin, unit = axes.transData.transform([(0, 0), (1, 1)])
        assert np.isclose(*(unit - origin))
    scales = [np.diff(axes.transData.transform([(0, 0), (1, 1)]), axis=0)[0, 0] for axes in figure.axes]
    assert np.allclose(scales, scales[0])


def test_rendered_block_has_the_ratio_of_the_spacing():
    volume = torch.zeros(SHAPE)
    volume[5:15, 10:20, 15:25] = 1.0
    figure = slices(volume, _grid())
    for axes, ratio in zip(figure.axes, (2 / 1, 3 / 1, 3 / 2), strict=True):
        rows, columns = np.nonzero(_panel(figure, axes, 200) > 0.96)
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(ratio, rel=0.06)


def test_labels_lie_on_their_voxels():
    labels = torch.zeros(SHAPE, dtype=torch.int64)
    labels[_brain() == 1] = 2
    figure = slices(_brain(blob=False), _grid(), labels, positions=BLOB, classes=["none", "a", "cortex"])
    d, h, w = BLOB
    for axes, (y, x) in zip(figure.axes, ((h, w), (d, w), (d, h)), strict=True):
        painted = axes.images[1].get_array()
        rows, columns = np.nonzero(painted[..., 3])
        assert (rows.mean(), columns.mean()) == (y, x)
        assert np.allclose(painted[y, x, :3], class_colour(2))
        assert axes.images[1].get_extent() == axes.images[0].get_extent()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["cortex"]
    outlined = slices(_brain(), _grid(), labels, positions=BLOB, contours=True)
    (outline,) = outlined.axes[0].collections[0].get_paths()
    assert np.allclose(outline.vertices.mean(axis=0), [w, h * 2], atol=0.3)


def test_views_follow_the_brain():
    brain = np.zeros(SHAPE, dtype=bool)
    brain[8:12, 12:20, 10:20] = True
    view = View(_grid(), brain)
    assert view.positions == [9, 15, 14]
    assert View(_grid(), np.zeros(SHAPE, dtype=bool)).ranges == [(0, 19), (0, 29), (0, 39)]
    with pytest.raises(ValueError, match="outside"):
        View(_grid(), brain, (0, 0, 40))
    with pytest.raises(ValueError, match="expected shape"):
        array(torch.zeros(3, 4, 5), _grid())


def test_cohort_wraps_and_shares_slice_scale_and_window():
    rows = {"Simulated subjects": [_brain()] * 8, "Generated": [_brain(False) * 0.5] * 2}
    captions = {"Simulated subjects": [f"sub-{k:02d}" for k in range(8)], "Generated": ["a", "b"]}
    figure = cohort(rows, _grid(), captions=captions)
    assert len(figure.axes) == 10
    tops = [round(axes.get_position().y1, 4) for axes in figure.axes]
    assert len(set(tops[:6])) == 1 and len(set(tops)) == 3 and tops == sorted(tops, reverse=True)
    assert len({axes.images[0].get_clim() for axes in figure.axes}) == 1
    assert len({round(axes.get_position().width, 6) for axes in figure.axes}) == 1
    written = {text.get_text() for text in figure.texts}
    assert {"Simulated subjects", "Generated", "sub-07", "b"} <= written


def test_cohort_with_labels_in_three_planes():
    labels = (_brain() == 1).long()
    figure = cohort({"A": [_brain()] * 2}, _grid(), ("axial", "coronal", "sagittal"), labels={"A": [labels] * 2})
    assert [len(axes.images) for axes in figure.axes] == [2] * 6
    with pytest.raises(ValueError, match="at least one"):
        cohort({"A": []}, _grid())


def test_background_is_dark_and_empty_volumes_are_drawn():
    figure = slices(torch.zeros(SHAPE), _grid(), title="nothing")
    assert to_rgb(figure.get_facecolor()) == (0, 0, 0)
    assert to_png(figure, 40).startswith(b"\x89PNG")
