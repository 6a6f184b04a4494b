"""The coil's shading."""

import math
from collections.abc import Sequence

import SimpleITK as sitk
import torch

from cortexgen.errors import UserError
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps.step import Step
from cortexgen.preprocess.steps.volumes import box_around


class CorrectBias(Step):
    """N4 (Tustison et al., 2010) inside the brain, or inside the head where there is no mask yet.

    Arguments:
        spacing: millimetres, at least, at which the bias is estimated; it is applied at full size.
        iterations: at most, on each level of the B-spline.
    """

    name, tools = "bias", ("SimpleITK",)

    def __init__(self, spacing: float = 4.0, iterations: Sequence[int] = (50, 50, 50, 50)) -> None:
        if spacing <= 0 or not iterations or min(iterations) < 1:
            raise UserError(
                f"CorrectBias: expected a spacing and iterations above 0, got {spacing}, {list(iterations)}"
            )
        self.spacing, self.iterations = spacing, list(iterations)

    def __call__(self, subject: Subject) -> None:
        inside = subject.inside & (subject.image > 0)
        box = box_around(inside)
        image, mask = (sitk.GetImageFromArray(v[box][0].numpy()) for v in (subject.image, inside.to(torch.uint8)))
        for volume in (image, mask):
            volume.SetSpacing(subject.grid.spacing[::-1])
        factors = [max(1, math.ceil(self.spacing / s - 0.1)) for s in image.GetSpacing()]
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(self.iterations)
        n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
        log_bias = torch.from_numpy(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)))
        corrected = subject.image.clone()
        corrected[box] = subject.image[box] / log_bias.exp()
        subject.image = corrected
