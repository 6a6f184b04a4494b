"""From a scanner's T1w to an analysis-ready one."""

from cortexgen.preprocess.pipeline import Pipeline, preprocess_scan
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps import Align, CorrectBias, Crop, Denoise, Normalize, Resample, Step, StripSkull

__all__ = [
    "Align",
    "CorrectBias",
    "Crop",
    "Denoise",
    "Normalize",
    "Pipeline",
    "Resample",
    "Step",
    "StripSkull",
    "Subject",
    "default_steps",
    "preprocess_scan",
]


def default_steps() -> list[Step]:
    """From a raw scan to template space at 1 mm: the skull goes first, so that noise and bias are the brain's own."""
    return [StripSkull(), Denoise(), CorrectBias(), Align(), Resample(), Normalize()]
