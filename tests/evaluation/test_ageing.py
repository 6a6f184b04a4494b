"""Ageing of simulated people whose bands, slopes and curves are known."""

import numpy as np
import pytest
import torch

from cortexgen.evaluation.ageing import TABLES, People, age_rows, band_rows, curve_rows, slope_rows
from cortexgen.evaluation.table import Table
from cortexgen.metrics.resampling import Interval

REGIONS = ["Lateral-Ventricle", "Cerebral-Cortex"]
BENT, STRAIGHT = (0.3, 0.9), (-2.0, -3.0)  # ml a decade² of ventricles and ml a year of cortex, F and M


def people(n: int, seed: int, faults: dict[str, float] | None = None, sexes: str = "FM") -> People:
    """Of 20 to 82 years: ventricles grow with the square of age, cortex shrinks; faults of a set in ml."""
    rng, faults = np.random.default_rng(seed), faults or {}
    age, male = rng.uniform(20, 82, n), rng.integers(0, 2, n)
    decades = (age - 50) / 10
    ventricle = 20 + 3 * decades + np.array(BENT)[male] * decades**2 + rng.normal(0, 4, n)
    ventricle += faults.get("old", 0) * (age >= 60)
    cortex = 600 + (np.array(STRAIGHT)[male] + faults.get("slope", 0)) * (age - 50) + rng.normal(0, 30, n)
    rows = [{"age": float(a), "sex": sexes[m]} for a, m in zip(age, male, strict=True)]
    return People.of(torch.from_numpy(np.stack([ventricle, cortex], axis=1)), rows)


def number(value: object) -> float:
    assert isinstance(value, Interval)
    return value.value


def test_people_of_unknown_age_are_left_out() -> None:
    rows = [{"age": 30.0, "sex": "F"}, {"age": None}, {"sex": "M"}, {"age": "old"}, {"age": 40}]
    found = People.of(torch.arange(5.0)[:, None], rows)
    assert found.volumes.flatten().tolist() == [0, 4] and found.ages.tolist() == [30, 40]
    assert list(found.sexes) == ["F", None]


def test_a_fault_in_one_band_is_found_there_and_in_no_other() -> None:
    rows = band_rows(REGIONS, people(600, 0), people(600, 1, {"old": 6.0}), 200)
    assert [(row["band"], row["region"]) for row in rows] == [
        (band, region) for band in ("20-40", "40-60", "60 and over") for region in REGIONS
    ]
    assert [row["close"] for row in rows] == ["yes"] * 4 + ["no", "yes"]
    assert 0.6 < number(rows[4]["d"]) < 1.4


def test_the_interval_of_a_band_is_as_wide_as_the_closed_form_says() -> None:
    """Hedges & Olkin's, for d near 0; and it is where d of the set over the real one is, with its sign."""
    real, other = people(300, 0), people(400, 1)
    for row in band_rows(REGIONS, real, other, 1000):
        d, n, m = row["d"], row["n_real"], row["n"]
        assert isinstance(d, Interval) and isinstance(n, int) and isinstance(m, int)
        assert d.high - d.low == pytest.approx(2 * 1.96 * (1 / n + 1 / m + d.value**2 / 2 / (n + m)) ** 0.5, rel=0.12)


def test_too_few_people_are_no_measurement() -> None:
    rows = band_rows(REGIONS, people(24, 0), people(600, 1), 200)  # about 8 of each band: d to ±.7
    assert {row["close"] for row in rows} == {"not measured"}
    assert all(isinstance(row["d"], Interval) for row in rows)  # and it is printed
    young = people(300, 2)
    young = People(young.volumes[young.ages < 60], young.ages[young.ages < 60], young.sexes)
    last = band_rows(REGIONS, young, people(600, 1), 50)[-1]
    assert (last["n_real"], last["d"], last["close"]) == (0, None, "not measured")


def test_slopes_and_curvatures_are_those_that_were_simulated() -> None:
    rows = slope_rows(REGIONS, people(2000, 0), people(2000, 1))
    assert [(row["sex"], row["region"]) for row in rows] == [(sex, region) for sex in "FM" for region in REGIONS]
    for row in rows:
        male = row["sex"] == "M"
        name, truth = ("bend", BENT) if row["region"] == REGIONS[0] else ("slope", STRAIGHT)
        for side in (f"{name}_real", name):
            found = row[side]
            assert isinstance(found, Interval) and found.high - found.low < 0.5
            assert found.low - 0.05 < truth[male] < found.high + 0.05
        assert abs(float(str(row[f"{name}_z"]))) < 3


def test_a_wrong_slope_is_many_errors_away() -> None:
    rows = slope_rows(REGIONS, people(300, 0), people(300, 1, {"slope": 1.0}))
    cortex = [float(str(row["slope_z"])) for row in rows if row["region"] == "Cerebral-Cortex"]
    others = [float(str(row["slope_z"])) for row in rows if row["region"] != "Cerebral-Cortex"]
    assert min(cortex) > 4 and max(map(abs, others)) < 3


def test_curves_go_through_the_simulated_volumes() -> None:
    rows = curve_rows(REGIONS, people(3000, 0), people(3000, 1))
    assert [row["age"] for row in rows[:7]] == [20, 30, 40, 50, 60, 70, 80]
    for row in rows:
        if row["region"] == REGIONS[0]:
            decades = (int(str(row["age"])) - 50) / 10
            truth = 20 + 3 * decades + BENT[row["sex"] == "M"] * decades**2
            assert number(row["real"]) == pytest.approx(truth, abs=1.0)
            assert number(row["synthetic"]) == pytest.approx(truth, abs=1.0)


def test_sexes_that_are_rare_or_of_one_age_have_no_curve() -> None:
    real = people(200, 0)
    assert slope_rows(REGIONS, real, people(200, 1, sexes="FF"))[-1]["sex"] == "F"
    assert slope_rows(REGIONS, real, people(12, 1)) == []
    same = people(200, 1)
    assert curve_rows(REGIONS, real, same._replace(ages=torch.full((200,), 50.0))) == []


def test_tables_say_what_was_not_measured() -> None:
    found = age_rows(REGIONS, people(24, 0), people(200, 1), 100)
    assert found.keys() == TABLES.keys()
    caption, columns = TABLES["age_bands"]
    text = Table([{"set": "x", **row} for row in found["age_bands"]], columns, caption).to_markdown()
    assert text.count("not measured") == 6
    assert age_rows(REGIONS, people(9, 0), people(200, 1)) == {}
