"""Gaussian diffusion: a schedule (t to log-SNR), a parameterization (what the network predicts), a sampler.

The process is variance preserving: `z_t = alpha_t x + sigma_t eps` with `alpha² = sigmoid(lambda)`,
`sigma² = sigmoid(-lambda)` and `lambda` the log-SNR (Kingma et al., NeurIPS 2021).
"""

from cortexgen.diffusion.parameterization import Prediction, to_eps, to_x0, training_target
from cortexgen.diffusion.prior import GaussianPrior, cosine_transform
from cortexgen.diffusion.prior_fit import fit_priors
from cortexgen.diffusion.reverse import reverse_steps, synthesize
from cortexgen.diffusion.sampler import SamplerName, sample_field, sampling_log_snr
from cortexgen.diffusion.schedule import CosineSchedule, LinearBetaSchedule, alpha_sigma, diffuse

__all__ = [
    "CosineSchedule",
    "GaussianPrior",
    "LinearBetaSchedule",
    "Prediction",
    "SamplerName",
    "alpha_sigma",
    "cosine_transform",
    "diffuse",
    "fit_priors",
    "reverse_steps",
    "sample_field",
    "sampling_log_snr",
    "synthesize",
    "to_eps",
    "to_x0",
    "training_target",
]
