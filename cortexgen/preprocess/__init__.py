"""From a scanner's T1w to an analysis-ready one."""

from cortexgen.preprocess.pipeline import Pipeline, preprocess_scan
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.align import Align
from cortexgen.preprocess.steps.bias import CorrectBias
from cortexgen.preprocess.steps.denoise import Denoise
from cortexgen.preprocess.steps.grids import Crop, Resample
from cortexgen.preprocess.steps.intensity import Normalize
from cortexgen.preprocess.steps.skull import StripSkull
from cortexgen.preprocess.steps.step import Step

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
