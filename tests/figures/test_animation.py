import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import find_objects, label

from cortexgen.figures import animate
from cortexgen.figures.animation import HOLD
from cortexgen.io import Grid, read_volume
from cortexgen.spatial import warp

SHAPE, SPACING = (20, 30, 40), (3.0, 2.0, 1.0)
GRID = Grid(SHAPE, np.array([[0, 0, 1.0, -20], [0, 2, 0, -30], [3, 0, 0, -30], [0, 0, 0, 1]]), "LAS")
BOX = (17, 25, 34)


def _brain():
    """A grey box; on the middle slices bright marks: left and anterior, left and superior, anterior and superior."""
    volume = torch.zeros(SHAPE)
    volume[2:19, 3:28, 3:37] = 0.4
    for d, h, w in ((10, 22, 10), (16, 15, 10), (16, 22, 19)):
        volume[d - 1 : d + 2, h - 2 : h + 3, w - 3 : w + 4] = 1.0
    return volume


def _frames(count):
    """The box is pushed to the right, by 6 mm at the end."""
    fields = torch.zeros(count, 3, *SHAPE)
    fields[:, 2] = -torch.linspace(0, 6, count)[:, None, None, None]
    return warp(_brain().expand(count, 1, *SHAPE), fields)[:, 0], fields


def _read(path):
    """Every frame as RGB `[H, W, 3]`, and how long it is shown in milliseconds."""
    pictures, times = [], []
    with Image.open(path) as film:
        assert film.format == "GIF" and film.info["loop"] == 0
        for k in range(film.n_frames):
            film.seek(k)
            pictures.append(np.asarray(film.convert("RGB")).astype(int))
            times.append(film.info["duration"])
    return np.stack(pictures), times


def _panels(picture):
    """Where the six boxes are drawn, upper row first: from left to right axial, coronal, sagittal."""
    boxes, count = label(picture.mean(axis=-1) > 0.2 * 255)
    sizes = np.bincount(boxes.ravel())[1:]
    found = [find_objects(boxes)[k] for k in np.argsort(sizes)[-6:]]
    assert count >= 6
    found.sort(key=lambda box: box[0].start)
    return [box for row in (found[:3], found[3:]) for box in sorted(row, key=lambda box: box[1].start)]


def test_it_plays_forth_and_back(tmp_path):
    frames, fields = _frames(5)
    animate(tmp_path / "a.gif", frames, _brain(), GRID, fields, seconds=1.0)
    pictures, times = _read(tmp_path / "a.gif")
    assert len(pictures) == 8
    hold = round(1000 * HOLD)
    assert times == [250 + hold, 250, 250, 250, 250 + hold, 250, 250, 250]
    for k in (1, 2, 3):
        np.testing.assert_array_equal(pictures[k], pictures[8 - k])
    changes = [np.abs(pictures[k] - pictures[0]).mean() for k in range(5)]
    assert changes[1] > 0 and changes[4] > changes[1]


def test_sides_and_scale_are_those_of_the_body(tmp_path):
    animate(tmp_path / "a.gif", _frames(2)[0], _brain(), GRID)
    picture = _read(tmp_path / "a.gif")[0][0]
    millimetres = [n * s for n, s in zip(BOX, SPACING, strict=True)]
    scales = []
    for box, (rows, columns) in zip(_panels(picture), ((1, 2), (0, 2), (0, 1)) * 2, strict=True):
        height, width = picture[box].shape[:2]
        scales += [height / millimetres[rows], width / millimetres[columns]]
        y, x = np.nonzero(picture[box].mean(axis=-1) > 0.96 * 255)
        assert y.mean() / height < 0.35
        assert x.mean() / width > 0.65 if columns == 1 else x.mean() / width < 0.35
    np.testing.assert_allclose(scales, np.mean(scales), rtol=0.03)


def test_the_image_moves_and_the_fixed_one_does_not(tmp_path):
    frames, fields = _frames(3)
    animate(tmp_path / "a.gif", frames, _brain(), GRID)
    first, middle, last = _read(tmp_path / "a.gif")[0][:3]
    places = [[box[1].start for box in _panels(picture)] for picture in (first, middle, last)]
    for k in (0, 1):
        assert places[0][k] < places[1][k] < places[2][k]
    assert places[0][2:] == places[1][2:] == places[2][2:]
    lower = slice(_panels(first)[3][0].start, None)
    np.testing.assert_array_equal(first[lower], last[lower])

    animate(tmp_path / "lines.gif", frames, _brain(), GRID, fields)
    yellow = [np.ptp(picture, axis=-1) > 40 for picture in (first, _read(tmp_path / "lines.gif")[0][0])]
    assert not yellow[0].any() and yellow[1].sum() > 1000 and not yellow[1][lower].any()


def test_the_same_frames_give_the_same_bytes(tmp_path):
    frames, fields = _frames(3)
    for name in ("a", "b"):
        animate(tmp_path / name / "film.gif", list(frames[:, None]), _brain()[None], GRID, list(fields[:, None]))
        assert [path.name for path in (tmp_path / name).iterdir()] == ["film.gif"]
    assert (tmp_path / "a/film.gif").read_bytes() == (tmp_path / "b/film.gif").read_bytes()


def test_what_does_not_fit_together_is_refused(tmp_path):
    frames, fields = _frames(3)
    for given in ({"frames": frames[:1]}, {"displacements": fields[:2]}, {"etas": [0.0, 1.0]}):
        with pytest.raises(ValueError, match="two or more frames"):
            animate(tmp_path / "a.gif", **{"frames": frames, "fixed": _brain(), "grid": GRID, **given})
    with pytest.raises(ValueError, match="expected shape"):
        animate(tmp_path / "a.gif", frames, _brain()[1:], GRID)
    assert not list(tmp_path.iterdir())


def test_eleven_frames_of_a_real_brain_are_small(tmp_path, real_brains):
    moving, grid = read_volume(real_brains / "tpl-MNI152NLin2009aSym/tpl-MNI152NLin2009aSym_res-2_T1w.nii.gz")
    coarse = 4 * torch.randn(1, 3, 6, 7, 6, generator=torch.Generator().manual_seed(0))
    field = torch.nn.functional.interpolate(coarse, grid.shape, mode="trilinear")
    fields = [eta * field for eta in torch.linspace(0, 1, 11)]
    frames = [warp(moving[None], u)[0] for u in fields]
    animate(tmp_path / "a.gif", frames, moving, grid, fields)
    assert (tmp_path / "a.gif").stat().st_size < 2e6
