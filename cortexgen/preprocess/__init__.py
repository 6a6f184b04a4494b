"""From a scanner's T1w to an analysis-ready one."""

from cortexgen.preprocess.pipeline import Pipeline, preprocess_scan
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps import (
    Align,
    CorrectBias,
    Crop,
    Denoise,
    Normalize,
    Resample,
    Step,
    StripSkull,
    default_steps,
)
from cortexgen.runner.threads import limited_threads

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
    "limited_threads",
    "preprocess_scan",
]
