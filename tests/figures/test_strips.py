import math
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cortexgen.figures.colours import SYNTHETIC
from cortexgen.figures.strips import strip_charts

VOLUMES = (1400, 1410, 1420, 1430, 1440, 1450, 1460, 1470, 2000)


def _named(values):
    return [(f"sub-{k + 1:02d}", float(value)) for k, value in enumerate(values)]


def test_chart_shows_each_scan_and_names_the_flagged():
    strips = [("Brain volume (ml)", _named(VOLUMES), 1440, 100), ("Overlap", _named([0.7] * 8), 0.7, 0.01)]
    figure = strip_charts(strips, {"sub-09", "sub-02"})
    volume, overlap = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["Brain volume (ml)", "Overlap"]
    for axes, plain, marked in ((volume, (1400, *VOLUMES[2:-1]), (1410, 2000)), (overlap, [0.7] * 7, [0.7])):
        shown = [np.sort(c.get_offsets()[:, 0]) for c in axes.collections]
        assert np.allclose(shown[0], plain) and np.allclose(shown[1], marked)
        assert np.allclose(axes.collections[1].get_facecolor()[0][:3], to_rgb(SYNTHETIC))
    assert {text.get_text() for text in volume.texts} == {"sub-02", "sub-09"}
    (band,) = volume.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == pytest.approx((1340, 1540))
    assert not strip_charts([(*strips[0][:3], math.inf)], ()).axes[0].patches


def test_names_in_the_chart_do_not_lie_on_each_other():
    values = np.random.default_rng(1).normal(1400, 100, 40)
    named = _named(values)
    flagged = {name for name, _ in named[::2]}
    figure = strip_charts([("Brain volume (ml)", named, float(np.median(values)), math.inf)] * 2, flagged)
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 6 < len(boxes) <= 20
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(axes.bbox.x0 - 1 <= box.x0 and box.x1 <= axes.bbox.x1 + 1 for box in boxes)
    far = max(flagged, key=lambda name: abs(values[int(name[4:]) - 1] - np.median(values)))
    assert far in {text.get_text() for text in axes.texts}
