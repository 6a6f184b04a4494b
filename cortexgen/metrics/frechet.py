"""Fréchet distance between sets of features: FID, where the features are those of a trained network."""

import torch
from torch import Tensor

from cortexgen.metrics.sets import two_sets


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `[F]`, and rows whose products are the covariance, as few as possible."""
    mean = features.mean(dim=0)
    rows = (features - mean) / (len(features) - 1) ** 0.5
    return mean, torch.linalg.qr(rows, mode="r").R if len(rows) > rows.shape[1] else rows


def frechet_distance(real: Tensor, synthetic: Tensor) -> float:
    """Fréchet distance of the Gaussians with the sets' means and covariances (n - 1), in float64.

    `|mean_r - mean_s|² + Tr(S_r + S_s - 2 (S_r S_s)^(1/2))` (Dowson & Landau, 1982; Heusel et al., NeurIPS 2017). With
    `S = X^T X` the last trace is the sum of the singular values of `X_r X_s^T`: no square root of a matrix, whatever
    the rank. It is biased upwards, the more the fewer samples: `real_against_real` of this function shows how much.

    Arguments and errors are those of `two_sets`.
    """
    (mean, x), (other, y) = map(_centred, two_sets(real, synthetic, "a Fréchet distance"))
    traces = x.square().sum() + y.square().sum() - 2 * torch.linalg.svdvals(x @ y.T).sum()
    return float((mean - other).square().sum() + traces)
