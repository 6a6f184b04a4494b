"""A linear classifier of two sets, against scikit-learn's and Bayes' rule."""

import math

import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cortexgen.metrics import area_under_curve, balanced_accuracy, told_apart, told_apart_auc
from cortexgen.metrics.classifier import PENALTY, _folds, decisions


def normal(n: int, features: int, seed: int) -> torch.Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_is_scikit_learns_ridge_on_the_same_folds() -> None:
    real, synthetic = normal(33, 40, 0), normal(20, 40, 1) + 0.3
    x, y = torch.cat([real, synthetic]), torch.tensor([1] * 33 + [-1] * 20)
    z = ((x - x.mean(dim=0)) / x.std(dim=0)).numpy() / math.sqrt(40)
    fold, weight = _folds(torch.from_numpy(z), y.double(), 5), torch.where(y > 0, 53 / 66, 53 / 40)
    right = torch.zeros(53)
    for k in range(5):
        train, test = fold != k, fold == k
        # scikit-learn's intercept is free of the penalty, ours is one more feature: so it is here
        ones = torch.cat([torch.from_numpy(z), torch.ones(53, 1)], dim=1).numpy()
        model = RidgeClassifier(alpha=PENALTY, fit_intercept=False)
        model.fit(ones[train], y[train].numpy(), sample_weight=weight[train].numpy())
        right[test] = torch.from_numpy(model.predict(ones[test]) == y[test].numpy()).float()
    assert told_apart(real, synthetic) == pytest.approx(float(right[:33].mean() + right[33:].mean()) / 2)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0])
def test_of_two_gaussians_as_bayes_rule(shift: float) -> None:
    real, synthetic = normal(400, 4, 2), normal(400, 4, 3)
    synthetic[:, 0] += shift
    best = 0.5 * (1 + math.erf(shift / 2 / math.sqrt(2)))
    assert told_apart(real, synthetic) == pytest.approx(best, abs=0.04)


def test_numbers_of_brains_and_scales_of_features_say_nothing() -> None:
    real, synthetic = normal(300, 6, 4), normal(60, 6, 5)
    assert told_apart(real, synthetic) == pytest.approx(0.5, abs=0.1)
    scales = torch.tensor([1e-6, 1.0, 1e6, 3.0, 0.0, 1.0])
    same = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 1.0])
    assert told_apart(real * scales + 7, synthetic * scales + 7) == told_apart(real * same, synthetic * same)


def test_brains_that_are_drawn_twice_are_not_recognized() -> None:
    generator, values = torch.Generator().manual_seed(6), []
    real, synthetic = normal(24, 200, 7), normal(24, 200, 8)
    for _ in range(20):
        rows = [torch.randint(24, (24,), generator=generator) for _ in range(2)]
        values.append(told_apart(real[rows[0]], synthetic[rows[1]]))
    assert sum(values) / 20 == pytest.approx(0.5, abs=0.1)  # .75 and more if the two are in different folds


def test_of_one_brain_there_is_no_answer() -> None:
    assert math.isnan(told_apart(normal(1, 3, 0), normal(1, 3, 1)))


def test_area_and_accuracy_are_scikit_learns_with_ties() -> None:
    real, synthetic = (normal(n, 1, seed)[:, 0].mul(2).round() for n, seed in ((30, 9), (17, 10)))
    real = real + 0.5
    labels, scores = [1] * 30 + [0] * 17, torch.cat([real, synthetic]).numpy()
    assert area_under_curve(real, synthetic) == pytest.approx(roc_auc_score(labels, scores))
    assert balanced_accuracy(real, synthetic) == pytest.approx(balanced_accuracy_score(labels, scores > 0))
    assert math.isnan(area_under_curve(real, synthetic * math.nan))


def test_the_area_of_two_gaussians() -> None:
    real, synthetic = normal(400, 4, 2), normal(400, 4, 3)
    synthetic[:, 0] += 1.0
    found = told_apart_auc(real, synthetic)
    assert found == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=0.04)  # of a shift of 1 SD: Phi(1 / sqrt 2)
    assert found == area_under_curve(*decisions(real, synthetic))
    assert told_apart_auc(normal(400, 4, 2), normal(400, 4, 3)) == pytest.approx(0.5, abs=0.06)
