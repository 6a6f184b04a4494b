import math
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from cortexgen.figures.colours import SYNTHETIC
from cortexgen.preprocess.outliers import MEASURES, flag_outliers, measures_chart

# Median 1440; distances 40 30 20 10 0 10 20 30 and the last one's: MAD 20, so the fence is 3.5 * 20 / 0.6745 = 103.8.
VOLUMES = (1400, 1410, 1420, 1430, 1440, 1450, 1460, 1470)


def _rows(values, key="brain_volume_ml", **more):
    return [
        {"participant_id": f"sub-{k + 1:02d}", "status": "ok", key: value, **more} for k, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("last", "z"),
    [(2000, "+18.9"), (1544, "+3.51"), (1543, None), (1340, None), (1336, "−3.51"), (400, "−35.1")],
)
def test_outliers_as_worked_by_hand(last, z):
    values = (*VOLUMES, last) if last > 1440 else (*(2880 - v for v in VOLUMES), last)
    found = flag_outliers(_rows(values))
    expected = f"Brain volume = {last} ml (median 1440 ml, modified z {z})"
    assert found == ({"sub-09": [expected]} if z else {})


def test_small_cohorts_failed_scans_and_missing_values():
    rows = _rows((*VOLUMES[:-1], 2000))
    assert set(flag_outliers(rows)) == {"sub-08"}
    assert flag_outliers(rows[1:]) == {} == flag_outliers([])
    for missing in ({"brain_volume_ml": None}, {"brain_volume_ml": math.nan}, {"status": "failed"}):
        assert flag_outliers([rows[0] | missing, *rows[1:]]) == {}
    del rows[0]["brain_volume_ml"]
    assert flag_outliers(rows) == {}


def test_what_matters_little_is_no_outlier_however_alike_the_others_are():
    assert flag_outliers(_rows([0.0] * 11 + [4.0], "removed_ml")) == {}
    (text,) = flag_outliers(_rows([0.0] * 11 + [90.0], "removed_ml"))["sub-12"]
    assert text == "Removed = 90.0 ml (median 0.0 ml, modified z ∞)"
    assert flag_outliers(_rows([90.0] * 11 + [900.0], "seconds")) == {}


def test_one_scan_may_be_out_in_several_measures():
    rows = [a | b for a, b in zip(_rows((*VOLUMES, 2000)), _rows([0.7] * 8 + [0.3], "correlation"), strict=True)]
    rows[2]["overlap"] = 0.1
    assert [text.split(" = ")[0] for text in flag_outliers(rows)["sub-09"]] == [
        "Brain volume",
        "Correlation with template",
    ]


def test_chart_shows_each_scan_and_names_the_flagged():
    rows = [a | b for a, b in zip(_rows((*VOLUMES, 2000)), _rows([0.7] * 8 + [None], "overlap"), strict=True)]
    figure = measures_chart(rows, ["brain_volume_ml", "overlap"], {"sub-09", "sub-02"})
    volume, overlap = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["Brain volume (ml)", "Overlap with template"]
    for axes, plain, marked in ((volume, (1400, *VOLUMES[2:]), (1410, 2000)), (overlap, [0.7] * 7, [0.7])):
        shown = [np.sort(c.get_offsets()[:, 0]) for c in axes.collections]
        assert np.allclose(shown[0], plain) and np.allclose(shown[1], marked)
        assert np.allclose(axes.collections[1].get_facecolor()[0][:3], to_rgb(SYNTHETIC))
    assert {text.get_text() for text in volume.texts} == {"sub-02", "sub-09"}
    (band,) = volume.patches
    left, right = band.get_x(), band.get_x() + band.get_width()
    assert (left, right) == pytest.approx((1440 - 3.5 * 20 / 0.6745, 1440 + 3.5 * 20 / 0.6745))
    assert not measures_chart(rows[:5], ["brain_volume_ml"], ()).axes[0].patches


def test_names_in_the_chart_do_not_lie_on_each_other():
    values = np.random.default_rng(1).normal(1400, 100, 40)
    rows = _rows([float(v) for v in values])
    flagged = {row["participant_id"] for row in rows[::2]}
    figure = measures_chart(rows, list(MEASURES)[:1] * 2, flagged)
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert 6 < len(boxes) <= 20
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(axes.bbox.x0 - 1 <= box.x0 and box.x1 <= axes.bbox.x1 + 1 for box in boxes)
    far = max(flagged, key=lambda name: abs(values[int(name[4:]) - 1] - np.median(values)))
    assert far in {text.get_text() for text in axes.texts}
