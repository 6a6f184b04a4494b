"""Averages of weights against their closed form."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from cortexgen.training.averages import WarmWeightAveraging


def averaged(weights: list[float], decay: float) -> float:
    model, callback = torch.nn.Linear(1, 1, bias=False), WarmWeightAveraging(decay)
    mean = AveragedModel(model, **callback._kwargs)
    for weight in weights:
        torch.nn.init.constant_(model.weight, weight)
        mean.update_parameters(model)
    return float(mean.module.weight)


def test_short_trainings_forget_their_beginning_and_long_ones_have_the_decay() -> None:
    steps = 30
    kept = torch.tensor([(1 + n) / (10 + n) for n in range(1, steps)], dtype=torch.float64).prod()
    assert averaged([1.0] + [0.0] * (steps - 1), 0.999) == pytest.approx(float(kept), rel=1e-5)  # of the first weights
    assert kept < 1e-6 < 0.97 < 0.999 ** (steps - 1)
    long = averaged([0.0] * 200 + [1.0] * 20, 0.9)  # 200 steps are past the warm-up of .9
    assert long == pytest.approx(1 - 0.9**20, rel=1e-5)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        WarmWeightAveraging(decay)
