import io
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from cortexgen.atlas.template import Template
from cortexgen.figures import sheet_path, subject_sheet, to_png
from cortexgen.figures.scan_sheet import COLUMNS, MASK, TEMPLATE
from cortexgen.io import Grid, read_volume, write_volume

BRAIN, WHITE, VENTRICLES, INNER = (56, 76, 62), (36, 52, 40), (12, 20, 10), (40, 50, 40)  # semi-axes z, y, x in mm
CLASSES = ("Unknown", "Cerebral-White-Matter", "Cerebral-Cortex", "Lateral-Ventricle")


def _grid(spacing=4.0, reach=96):
    n = 2 * int(reach / spacing) + 1
    affine = np.array([[0, 0, spacing, -reach], [0, spacing, 0, -reach], [spacing, 0, 0, -reach], [0, 0, 0, 1.0]])
    return Grid((n, n, n), affine)


def _world(grid):
    """z, y and x of every voxel."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"))
    x, y, z = np.einsum("ij,jdhw->idhw", grid.affine[:3, :3], index) + grid.affine[:3, 3].reshape(3, 1, 1, 1)
    return z, y, x


def _ellipsoid(grid, axes, centre=(0, 0, 0)):
    place = zip(_world(grid), axes, centre, strict=True)
    return torch.from_numpy(sum(((w - c) / a) ** 2 for w, a, c in place) <= 1)[None]


def _template(labelled=True):
    grid = _grid()
    brain, white, ventricles = (_ellipsoid(grid, axes) for axes in (BRAIN, WHITE, VENTRICLES))
    labels = torch.where(ventricles, 3, torch.where(white, 1, torch.where(brain, 2, 0)))
    return Template("Egg", brain * 0.7, labels if labelled else None, CLASSES if labelled else (), grid, "")


def _sheet(grid, mask, image=None, **more):
    return subject_sheet(mask * 0.5 if image is None else image, mask, grid, _template(), "sub-01", **more)


def _centre(panel, colour):
    """Middle and extent (right, up) of the pixels of a colour."""
    rows, columns = np.nonzero((np.abs(panel[..., :3] - to_rgb(colour)) < 0.25).all(axis=-1))
    low, high = np.array([columns.min(), -rows.max()]), np.array([columns.max(), -rows.min()])
    return (low + high) / 2, high - low


def _panel(figure, axes, dpi=150):
    pixels = imread(io.BytesIO(to_png(figure, dpi)))
    box, (height, width) = axes.get_position(), pixels.shape[:2]
    rows = slice(round((1 - box.y1) * height), round((1 - box.y0) * height))
    return pixels[rows, round(box.x0 * width) : round(box.x1 * width)]


@pytest.mark.parametrize("moved", [(0, 0, 0), (8, 0, 0), (0, -12, 0), (0, 0, 16)])
def test_a_moved_mask_moves_its_outline_by_as_much(moved):
    grid = _grid()
    figure = _sheet(grid, _ellipsoid(grid, INNER, moved), torch.zeros(1, *grid.shape))
    for row, (up, right) in enumerate(((1, 2), (0, 2), (0, 1))):
        panel = _panel(figure, figure.axes[COLUMNS * row + 2])
        (mask, _), (template, extent) = _centre(panel, MASK), _centre(panel, TEMPLATE)
        offset = np.array([moved[right], moved[up]])
        # The panel is a slice at 0.42 of the brain's extent, a section of 0.98 of its semi-axes.
        millimetres = (mask - template) / extent * 2 * 0.98 * np.array([BRAIN[right], BRAIN[up]])
        assert np.allclose(millimetres, offset, atol=1.5)


def test_the_template_is_outlined_where_it_is_whatever_the_grid():
    grid = _grid(3.0, 99).window((40, 64, 60))
    figure = _sheet(grid, _ellipsoid(grid, INNER))
    axes = figure.axes[COLUMNS + 2]
    outlines = [c for c in axes.collections if np.allclose(c.get_edgecolor()[0][:3], to_rgb(TEMPLATE))]
    sizes = [c.get_paths()[0].vertices for c in outlines]
    (y,) = [float(text.split()[2].replace("−", "-")) for text in _headings(figure)[COLUMNS + 2 : COLUMNS + 3]]
    corner = grid.affine[[0, 2], 3]
    assert len(sizes) == 3
    for vertices, semi in zip(sizes, (BRAIN, WHITE, VENTRICLES), strict=True):
        across = np.sqrt(1 - (y / semi[1]) ** 2) * np.array([semi[2], semi[0]])
        assert np.allclose((vertices + corner).max(axis=0), across, atol=2.5)
        assert np.allclose((vertices + corner).min(axis=0), -across, atol=2.5)
    alone = subject_sheet(torch.zeros(grid.shape), torch.zeros(grid.shape), grid, _template(labelled=False), "")
    assert len(alone.axes[COLUMNS + 2].collections) == 1


def _headings(figure):
    return [text.get_text() for text in figure.texts if re.fullmatch(r"[xyz] = −?\d+ mm", text.get_text())]


def test_slices_are_where_their_headings_say():
    grid = _grid(3.0, 99)
    names, worlds = "zyx", _world(grid)
    everywhere = torch.ones(1, *grid.shape)
    for row in range(3):
        figure = _sheet(grid, everywhere, torch.from_numpy(worlds[row] + 200)[None])
        for k in range(COLUMNS * row, COLUMNS * (row + 1)):
            shown = np.unique(figure.axes[k].images[0].get_array()) - 200
            assert _headings(figure)[k] == f"{names[row]} = {shown.item():.0f} mm".replace("-", "−")
    places = [float(text.split()[2].replace("−", "-")) for text in _headings(figure)]
    for semi, row in zip(BRAIN, np.reshape(places, (3, COLUMNS)), strict=True):
        assert np.all(np.diff(row) > semi / 6) and -semi < row[0] < -0.7 * semi and 0.7 * semi < row[-1] < semi


def test_sides_are_named_and_native_images_stand_upright(tmp_path):
    grid = _grid()
    mask = _ellipsoid(grid, BRAIN)
    affine = np.array([[0, 0, 1.0, -20], [0, 2, 0, -30], [3, 0, 0, -30], [0, 0, 0, 1]])
    head = torch.zeros(1, 20, 30, 40)
    head[:, 2:18, 4:26, 5:35] = 0.4
    head[:, 6:14, 10:20, 6:20] = 1.0  # left of the midline: 14 mm wide, 20 mm long, 24 mm high
    pictures = []
    for codes in ("RAS", "LAS", "PIR"):
        write_volume(tmp_path / "t1.nii.gz", head, Grid((20, 30, 40), affine, codes))
        native, own = read_volume(tmp_path / "t1.nii.gz")
        assert own.codes == codes
        figure = _sheet(grid, mask, native=(native, native > 0, own))
        pictures.append(to_png(figure, 40))
    assert len(set(pictures)) == 1
    assert len(figure.axes) == 4 * COLUMNS
    for k, expected in ((0, "LRPA"), (6, "LRIS"), (12, "PAIS"), (18, "LRPA"), (20, "LRIS"), (22, "PAIS")):
        axes = figure.axes[k]
        at = {text.get_text(): text.get_position() for text in axes.texts}
        left, right, bottom, top = expected
        assert at[left][0] < 0.1 < 0.9 < at[right][0] and at[bottom][1] < 0.1 < 0.9 < at[top][1]
    for k, size in ((18, (14, 20)), (20, (14, 24)), (22, (20, 24))):
        panel = _panel(figure, figure.axes[k], 200)
        rows, columns = np.nonzero(panel[..., :3].min(axis=-1) > 0.96)
        assert np.ptp(rows) / np.ptp(columns) == pytest.approx(size[1] / size[0], rel=0.06)
        assert k == 22 or columns.max() < 0.52 * panel.shape[1]


def test_notes_are_printed_as_they_are():
    grid = _grid()
    notes = ["5 ml at $HOME were removed for $5", "word " * 60]
    figure = _sheet(grid, _ellipsoid(grid, INNER), notes=notes)
    written = [text.get_text() for text in figure.texts]
    assert "sub-01" in written and notes[0] in written
    assert sum(text.count("word") for text in written) == 60 and max(map(len, written)) < 200
    assert to_png(figure, 40).startswith(b"\x89PNG")
    assert figure.get_figheight() > _sheet(grid, _ellipsoid(grid, INNER)).get_figheight()
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["Brain mask", "Egg: brain, white matter, ventricles"]


def test_the_same_scan_gives_the_same_picture_and_an_empty_mask_is_drawn():
    grid = _grid()
    mask = _ellipsoid(grid, INNER)
    assert to_png(_sheet(grid, mask), 40) == to_png(_sheet(grid, mask.clone()), 40)
    nothing = torch.zeros(1, *grid.shape)
    figure = _sheet(grid, nothing, nothing, native=(nothing, nothing, grid))
    assert to_png(figure, 40) != to_png(_sheet(grid, mask, nothing, native=(nothing, mask, grid)), 40)
    with pytest.raises(ValueError, match="expected shape"):
        _sheet(grid, mask[:, 1:], nothing)


def test_sheets_lie_with_their_subject(tmp_path):
    folder = tmp_path / "sub-01" / "figures"
    assert sheet_path(tmp_path, "sub-01") == folder / "sub-01_desc-preproc_T1w.png"
    assert sheet_path(tmp_path, "sub-01_ses-2") == folder / "sub-01_ses-2_desc-preproc_T1w.png"
