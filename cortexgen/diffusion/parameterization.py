"""What a denoising network predicts, and how x0 and eps follow from it."""

from typing import Literal

from torch import Tensor

from cortexgen.diffusion.schedule import _like, alpha_sigma

Prediction = Literal["eps", "v", "x0"]


def training_target(x0: Tensor, noise: Tensor, log_snr: Tensor, prediction: Prediction) -> Tensor:
    """The network's target: eps, x0, or `v = alpha eps - sigma x0` (Salimans & Ho, ICLR 2022).

    Arguments:
        x0, noise: `[B, *]`.
        log_snr: `[B]`.
    """
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return x0
    alpha, sigma = (_like(c, x0) for c in alpha_sigma(log_snr))
    return alpha * noise - sigma * x0


def to_x0(output: Tensor, z: Tensor, log_snr: Tensor, prediction: Prediction, clip: float | None = None) -> Tensor:
    """The clean field that a network's output for z means.

    With "eps", `x0 = (z - sigma eps) / alpha` multiplies errors by up to 1/alpha (2e4 at log-SNR -20): give a `clip`.

    Arguments:
        output, z: `[B, *]`.
        log_snr: `[B]`.
        clip: bound of |x0|, in units of the scaled field.
    """
    alpha, sigma = (_like(c, z) for c in alpha_sigma(log_snr))
    if prediction == "x0":
        x0 = output
    elif prediction == "v":
        x0 = alpha * z - sigma * output
    else:
        x0 = (z - sigma * output) / alpha
    return x0 if clip is None else x0.clamp(-clip, clip)


def to_eps(x0: Tensor, z: Tensor, log_snr: Tensor) -> Tensor:
    """The noise `(z - alpha x0) / sigma` that belongs to z and x0."""
    alpha, sigma = (_like(c, z) for c in alpha_sigma(log_snr))
    return (z - alpha * x0) / sigma
