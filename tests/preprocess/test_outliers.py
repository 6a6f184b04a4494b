import math

import pytest

from cortexgen.preprocess.outliers import fence, flag_outliers

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


def test_usual_values_reach_as_far_as_those_that_are_no_outliers():
    rows = _rows((*VOLUMES, 2000))
    assert fence(rows, "brain_volume_ml") == pytest.approx((1440, 3.5 * 20 / 0.6745))
    assert fence(rows[:5], "brain_volume_ml") == (1420, math.inf)
