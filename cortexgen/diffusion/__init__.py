"""Gaussian diffusion: a schedule (t to log-SNR), a parameterization (what the network predicts), a sampler.

The process is variance preserving: `z_t = alpha_t x + sigma_t eps` with `alpha² = sigmoid(lambda)`,
`sigma² = sigmoid(-lambda)` and `lambda` the log-SNR (Kingma et al., NeurIPS 2021).
"""

from cortexgen.diffusion.parameterization import Prediction, to_eps, to_x0, training_target
from cortexgen.diffusion.prior import GaussianPrior, Posterior, cosine_transform
from cortexgen.diffusion.prior_fit import fit_priors
from cortexgen.diffusion.reverse import synthesize
from cortexgen.diffusion.sampler import DDIM, Ancestral, DPMSolver2M, Noise, Sampler, SamplerName, sampler_named
from cortexgen.diffusion.schedule import CosineSchedule, LinearBetaSchedule, alpha_sigma, diffuse

__all__ = [
    "DDIM",
    "Ancestral",
    "CosineSchedule",
    "DPMSolver2M",
    "GaussianPrior",
    "LinearBetaSchedule",
    "Noise",
    "Posterior",
    "Prediction",
    "Sampler",
    "SamplerName",
    "alpha_sigma",
    "cosine_transform",
    "diffuse",
    "fit_priors",
    "sampler_named",
    "synthesize",
    "to_eps",
    "to_x0",
    "training_target",
]
