"""How an image's energy is spread over spatial frequencies."""

from collections.abc import Sequence

import torch
from torch import Tensor

BANDS = 6


def radial_power(image: Tensor, spacing: Sequence[float], bands: int = BANDS) -> Tensor:
    """Mean power of an image's frequencies in shells of equal width from 0 to the coarsest axis' Nyquist frequency.

    A skull-stripped brain lies in zeros, so that nothing is faded out at the borders. Frequencies beyond the last
    shell, in the corners of the cube, are left out. Over all frequencies, power sums up to the image's energy.

    Arguments:
        image: `[1, D, H, W]`.
        spacing: of the voxels along D, H, W in mm.

    Returns:
        `[bands]`, float64.
    """
    power = torch.fft.fftn(image[0].double()).abs().square() / image[0].numel()
    axes = [torch.fft.fftfreq(n, d=s, dtype=torch.float64) for n, s in zip(image.shape[1:], spacing, strict=True)]
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(dim=0).sqrt()
    nyquist = 0.5 / max(spacing)
    shell = (frequency / nyquist * bands).floor().long()
    inside = shell < bands
    sums = torch.bincount(shell[inside], power[inside], bands)
    return sums / torch.bincount(shell[inside], minlength=bands)
