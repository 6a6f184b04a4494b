"""A Gaussian prior from the principal modes of the training fields, and what it says of a noisy field."""

import torch
from torch import Tensor

from cortexgen.diffusion.schedule import _like, alpha_sigma


class GaussianPrior:
    """`x ~ N(0, sum_k s_k² e_k e_k^T)`, with the variance beyond those modes known only in total.

    A network that predicts what this prior leaves over, in units of its expected size, generalizes v-prediction: with
    an isotropic prior of unit variance the posterior mean of x is `alpha z`, its deviation sigma, and the residual is
    `(x - alpha z) / sigma = -v`. With few subjects the modes hold most of the variance from the first step on.

    Arguments:
        modes: orthonormal e_k, `[K, *]`.
        variances: s_k², `[K]`.
        rest: variance a voxel and channel that the modes leave.
    """

    def __init__(self, modes: Tensor, variances: Tensor, rest: float) -> None:
        self.modes, self.variances, self.rest = modes, variances, rest

    @classmethod
    def fit(cls, fields: Tensor, count: int) -> "GaussianPrior":
        """The `count` largest modes of centred fields `[N, *]`, fewer where N is smaller."""
        flat = fields.flatten(1).double()
        _, singular, vectors = torch.linalg.svd(flat, full_matrices=False)
        variances = singular.square() / len(flat)
        kept = variances[:count]
        rest = float((flat.square().sum() / len(flat) - kept.sum()).clamp(min=0)) / flat.shape[1]
        return cls(vectors[:count].float().view(-1, *fields.shape[1:]), kept.float(), rest)

    def posterior(self, z: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of x given `z = alpha x + sigma eps`, and the size of what it leaves.

        Arguments:
            z: `[B, *]`.
            log_snr: `[B]`.

        Returns:
            The mean `sum_k alpha s_k² / (alpha² s_k² + sigma²) <z, e_k> e_k`, `[B, *]`, and the root mean square a
            voxel of `x - mean`, `[B, 1, ...]`.
        """
        alpha, sigma = (c.to(z.device)[:, None] for c in alpha_sigma(log_snr))
        modes, variances = self.modes.to(z).flatten(1), self.variances.to(z)
        total = alpha.square() * variances + sigma.square()
        with torch.autocast(z.device.type, enabled=False):
            scores = z.flatten(1) @ modes.T
            mean = (alpha * variances / total * scores) @ modes
        left = (variances * sigma.square() / total).sum(dim=1) / modes.shape[1] + self.rest
        return mean.view_as(z), _like(left.sqrt(), z)
