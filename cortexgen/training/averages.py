"""Averages of a training's weights, which are what validations and samples see."""

from typing import Any

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class WarmWeightAveraging(WeightAveraging):
    """Exponential averages of weights that forget their beginning.

    After n steps the decay is `min(decay, (1 + n) / (10 + n))`, so that a short training isn't the average of its start
    (as TensorFlow's ExponentialMovingAverage with `num_updates`).

    Arguments:
        decay: of the averages in the end, in [0, 1).

    Raises:
        ValueError: if it isn't.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected 0 or more and less than 1, got {decay}")

        def average(mean: Tensor, new: Tensor, steps: Any) -> Tensor:
            weight = min(decay, (1 + int(steps)) / (10 + int(steps)))
            return weight * mean + (1 - weight) * new

        super().__init__(avg_fn=average)
