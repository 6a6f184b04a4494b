"""One scale of intensities."""

import numpy as np

from cortexgen.errors import UserError
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.step import Step


class Normalize(Step):
    """Intensities to [0, 1] by percentiles inside the brain.

    Arguments:
        high: percentile that becomes 1.
        low: percentile that becomes 0; without one, zero stays zero, as the shipped weights expect.
    """

    name, after = "normalize", ("denoise", "bias", "strip")

    def __init__(self, high: float = 99.5, low: float | None = None) -> None:
        if not 0 <= (low or 0) < high <= 100:
            raise UserError(f"Normalize: expected percentiles 0 <= low < high <= 100, got low {low} and high {high}")
        self.high, self.low = high, low

    def __call__(self, subject: Subject) -> None:
        inside = subject.inside
        values = subject.image[inside & (subject.image > 0)].numpy()
        if not values.size:
            raise UserError(f"{subject.source}: no voxel of its brain is above zero")
        bottom = 0.0 if self.low is None else float(np.percentile(values, self.low))
        top = float(np.percentile(values, self.high))
        if top <= bottom:
            raise UserError(f"{subject.source}: every voxel of its brain is {top:g}; a brain has contrast")
        subject.image = ((subject.image - bottom) / (top - bottom)).clamp(0, 1)
