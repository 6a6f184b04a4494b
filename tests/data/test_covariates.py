import numpy as np
import pytest
import torch

from cortexgen.data.covariates import ENOUGH, SLOTS, CovariateEncoder, complete
from cortexgen.errors import UserError

ROWS = [
    {"age": 20.0, "sex": "F", "group": "depr"},
    {"age": 30.0, "sex": "M", "group": "control"},
    {"age": 70.0, "sex": None, "group": "control"},
    {"age": None, "sex": "F"},
]


@pytest.fixture
def encoder():
    return CovariateEncoder.fit(["age", "sex"], ROWS)


def test_numbers_are_standardized_and_levels_are_one_hot(encoder):
    code = encoder.encode(ROWS).view(4, 2, SLOTS)
    ages = np.array([20.0, 30, 70])
    np.testing.assert_allclose(code[:3, 0, 0], (ages - ages.mean()) / ages.std(), rtol=1e-6)
    assert code[:3, 0, 1:-1].abs().sum() == 0
    expected = torch.zeros(4, SLOTS)
    expected[[0, 3], 0] = 1  # F
    expected[1, 1] = 1  # M
    expected[[0, 1, 3], -1] = 1  # known
    assert torch.equal(code[:, 1], expected)
    assert code[:, 0, -1].tolist() == [1, 1, 1, 0]


def test_what_is_not_known_is_all_zeros_and_is_not_the_mean(encoder):
    unknown, mean = encoder.encode([{}, {"age": 40.0}])
    assert not unknown.any()
    assert mean[0] == 0 and mean[SLOTS - 1] == 1


def test_a_number_may_come_as_text(encoder):
    assert torch.equal(encoder.encode([{"age": "30"}]), encoder.encode([{"age": 30}]))
    assert encoder.check({"age": "30", "sex": "M"}) == []


def test_order_and_plain_types_survive_a_checkpoint(encoder):
    again = CovariateEncoder(dict(encoder.specs))
    assert list(again.specs) == ["age", "sex"]
    assert torch.equal(again.encode(ROWS), encoder.encode(ROWS))
    flat = [v for spec in encoder.specs.values() for v in spec.values()]
    assert all(type(v) in (float, list) for v in flat)


def test_an_unknown_level_is_an_error_that_lists_the_known_ones(encoder):
    for call in (lambda: encoder.encode([{"sex": "X"}]), lambda: encoder.check({"sex": "X"})):
        with pytest.raises(UserError, match="sex: 'X' is none of F, M"):
            call()


@pytest.mark.parametrize("value", [19.0, 71, "18.5"])
def test_a_value_outside_the_cohort_is_a_warning(encoder, value):
    (warning,) = encoder.check({"age": value})
    assert f"age {float(value):g}" in warning and "20 to 70" in warning
    assert encoder.check({"age": 20}) == encoder.check({"age": 70.0}) == []


def test_conditions_that_the_weights_do_not_know_are_errors(encoder):
    with pytest.raises(UserError, match=r"'iq' is not a covariate of these weights \(age, sex\)"):
        encoder.check({"iq": 100})
    with pytest.raises(UserError, match="unconditional"):
        CovariateEncoder({}).check({"age": 30})
    with pytest.raises(UserError, match="age: expected a number, got 'old'"):
        encoder.check({"age": "old"})


@pytest.mark.parametrize(
    "name, rows, text",
    [
        ("iq", ROWS, "covariate 'iq': no value for it; participants.tsv has age, group, sex"),
        ("iq", [{}, {}], "there is no participants.tsv"),
        ("age", [{"age": 30.0}, {"age": 30.0}], "covariate 'age': every subject has 30"),
        ("sex", [{"sex": "F"}, {"sex": "F"}], "covariate 'sex': 1 levels"),
        ("site", [{"site": f"s{k}"} for k in range(SLOTS)], f"covariate 'site': {SLOTS} levels"),
    ],
)
def test_columns_that_cannot_condition_anything_are_errors(name, rows, text):
    with pytest.raises(UserError, match=text):
        CovariateEncoder.fit([name], rows)


def test_as_many_levels_as_there_are_slots_for_are_told_apart():
    rows = [{"site": f"s{k}"} for k in range(SLOTS - 1)]
    code = CovariateEncoder.fit(["site"], rows).encode(rows)
    assert torch.equal(code[:, :-1], torch.eye(SLOTS - 1)) and code[:, -1].all()


def test_without_covariates_the_vector_is_empty():
    assert CovariateEncoder.fit([], ROWS).encode(ROWS).shape == (4, 0)


def test_the_design_has_mean_zero_and_knows_its_gaps(encoder):
    values, known = encoder.design(encoder.encode(ROWS))
    assert values.shape == (4, 2)  # age, and one column for two levels
    assert known.tolist() == [[True, True], [True, True], [True, False], [False, True]]
    for column in range(2):
        assert abs(float(values[known[:, column], column].mean())) < 1e-6
    assert encoder.columns() == {"age": 0}


def test_of_enough_people_age_has_a_square_that_it_does_not_correlate_with():
    """Together they give every parabola."""
    ages = 20 + 60 * np.linspace(0, 1, ENOUGH) ** 3
    rows = [{"size": float(k % 7), "sex": "FM"[k % 2], "age": float(age)} for k, age in enumerate(ages)]
    rows.append({"sex": "M", "size": 3.0})
    encoder = CovariateEncoder.fit(["sex", "age", "size"], rows)
    design, known = encoder.design(encoder.encode(rows))
    assert design.shape == (ENOUGH + 1, 4) and encoder.columns() == {"age": 1, "size": 3}
    assert known[-1].tolist() == [True, False, False, True] and not design[-1, 1:3].any()
    values = design[:-1, 1:3].double().numpy()
    assert np.abs(values.sum(axis=0)).max() < 1e-4 and abs(values[:, 0] @ values[:, 1]) < 1e-4
    columns, parabola = np.column_stack([values, np.ones(ENOUGH)]), np.square(ages / 30) - ages
    np.testing.assert_allclose(columns @ np.linalg.lstsq(columns, parabola, rcond=None)[0], parabola, rtol=1e-4)
    fewer = CovariateEncoder.fit(["age"], rows[1:])
    assert fewer.design(fewer.encode(rows))[0].shape == (ENOUGH + 1, 1)


def test_covariates_are_read_back_from_their_design():
    rows = [{"age": 20.0 + 2 * k, "site": "ABC"[k % 3], "size": float(k % 7)} for k in range(ENOUGH)]
    encoder = CovariateEncoder.fit(["age", "site", "size"], rows)
    for row, design in zip(rows, encoder.design(encoder.encode(rows))[0], strict=True):
        found = encoder.covariates(design)
        assert found == {
            "site": row["site"],
            "age": pytest.approx(row["age"]),
            "size": pytest.approx(row["size"], abs=1e-5),
        }
        assert encoder.covariates(1.2 * design)["site"] == row["site"]
    assert encoder.covariates(100 * design)["age"] == rows[-1]["age"]


def test_gaps_are_filled_as_a_joint_gaussian_says():
    """Against the mean and deviation of draws near the known values."""
    covariance = torch.tensor([[1.0, 0.5, 0.2], [0.5, 2.0, -0.3], [0.2, -0.3, 0.5]])
    torch.manual_seed(0)
    draws = torch.randn(400_000, 3) @ torch.linalg.cholesky(covariance).T
    near = draws[(draws[:, 0] - 0.7).abs() < 0.03]
    filled, left = complete(torch.tensor([[0.7, 0, 0]]), torch.tensor([[True, False, False]]), covariance)
    assert torch.allclose(filled[0], torch.tensor([0.7, *near[:, 1:].mean(dim=0).tolist()]), atol=0.03)
    assert torch.allclose(left[0], torch.tensor([0.0, *near[:, 1:].std(dim=0).tolist()]), atol=0.03)
    nothing, spread = complete(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool), covariance)
    assert not nothing.any() and torch.allclose(spread[0], covariance.diagonal().sqrt())
