"""The steps of preprocessing: each a small class with a name, a version and options."""

from cortexgen.preprocess.steps.align import Align
from cortexgen.preprocess.steps.bias import CorrectBias
from cortexgen.preprocess.steps.denoise import Denoise
from cortexgen.preprocess.steps.grids import Crop, Resample
from cortexgen.preprocess.steps.intensity import Normalize
from cortexgen.preprocess.steps.skull import StripSkull
from cortexgen.preprocess.steps.step import Step

__all__ = ["Align", "CorrectBias", "Crop", "Denoise", "Normalize", "Resample", "Step", "StripSkull"]
