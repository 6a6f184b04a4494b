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
    power = torch.fft.rfftn(image[0].double()).abs().square() / image[0].numel()
    sides = zip(image.shape[1:], spacing, strict=True)
    d, h, w = (torch.fft.fftfreq(n, d=s, dtype=torch.float64).square() for n, s in sides)
    half = w[: power.shape[-1]]
    frequency = (d[:, None, None] + h[:, None] + half).sqrt()
    twice = torch.full_like(half, 2.0)  # the other half's power is that of the conjugates
    twice[0] = 1.0
    nyquist = 0.5 / max(spacing)
    shell = (frequency / nyquist * bands).floor().long()
    inside = shell < bands
    shell, counts = shell[inside], twice.expand_as(power)[inside]
    return torch.bincount(shell, power[inside] * counts, bands) / torch.bincount(shell, counts, bands)
