"""Volumes from label maps, and how far those of synthetic brains are from real ones."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.effects import Estimate, cohens_d
from cortexgen.metrics.resampling import percentiles
from cortexgen.metrics.sets import VOLUMES, two_sets

DEEP = ("Thalamus", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala", "Accumbens-area", "VentralDC")
TISSUES = {
    "Cortical-GM": ("Cerebral-Cortex",),
    "Subcortical-GM": DEEP,
    "GM": ("Cerebral-Cortex", *DEEP, "Cerebellum-Cortex"),
    "WM": ("Cerebral-White-Matter", "Cerebellum-White-Matter"),
    "Ventricles": ("Lateral-Ventricle", "Inferior-Lateral-Ventricle", "Inf-Lat-Vent", "3rd-Ventricle", "4th-Ventricle"),
}


def tissue_volumes(volumes: Tensor, classes: Sequence[str]) -> dict[str, Tensor]:
    """Sums of regional volumes `[..., K]` by tissue, `[...]` each; tissues without a class are left out.

    Grey matter is cortex, deep nuclei (with the ventral diencephalon) and the cerebellum's cortex; the brain stem is in
    none. Where sulcal fluid is part of the background, ventricles are all the fluid there is.

    Arguments:
        classes: names of the K classes; "Left-" and "Right-" in front of a name don't matter.

    Raises:
        ValueError: if there are not K names.
    """
    if volumes.shape[-1] != len(classes):
        raise ValueError(f"expected a name for each of {volumes.shape[-1]} volumes, got {len(classes)}")
    names = [name.removeprefix("Left-").removeprefix("Right-") for name in classes]
    parts = {tissue: [k for k, name in enumerate(names) if name in members] for tissue, members in TISSUES.items()}
    return {tissue: volumes[..., columns].sum(dim=-1) for tissue, columns in parts.items() if columns}


def adjusted_effects(
    real: Tensor,
    synthetic: Tensor,
    real_icv: Tensor,
    synthetic_icv: Tensor,
    protocol: Literal["standard", "paper"] = "standard",
) -> Tensor:
    """Cohen's d of each region with intracranial volume (ICV) regressed out, `[K]`, float64.

    With `e_i = V_i - b (ICV_i - mean ICV)`, the mean over both sets, and one slope b for both:

    - `standard`: b = sum over the sets of `sum (ICV - its mean) (V - its mean)` over that of `(ICV - its mean)²`, the
      slope within the sets (as in analysis of covariance); `d = (mean e_synthetic - mean e_real) / SD`, the pooled SD.
    - `paper`: b is the slope over all brains thrown together, which explains a part of a true difference away if the
      sets differ in ICV too; `d = (mean e_real - mean e_synthetic) / sqrt((var_real + var_synthetic) / 2)`, variances
      over N, and the sign the other way round.

    Arguments:
        real, synthetic: volumes, `[N, K]` and `[M, K]`, 3 or more of each.
        real_icv, synthetic_icv: `[N]` and `[M]`, in any one unit.

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if there are too few brains, or all brains of each set have one ICV.
    """
    sets = real, synthetic = two_sets(real, synthetic, "an effect size", 3, VOLUMES)
    sizes = real_icv.double(), synthetic_icv.double()
    if sizes[0].shape != real.shape[:1] or sizes[1].shape != synthetic.shape[:1]:
        raise ValueError(f"expected ICV [N] and [M], got {tuple(real_icv.shape)} and {tuple(synthetic_icv.shape)}")
    if all(size.min() == size.max() for size in sizes):
        raise UserError("ICV correction needs brains of different ICV within a set, each set has one ICV")
    x, volumes = torch.cat(sizes), torch.cat(sets)
    middle = x.mean()
    if protocol == "standard":
        x, volumes = (torch.cat([part - part.mean(dim=0) for part in parts]) for parts in (sizes, sets))
    x = x - x.mean()
    slope = x @ volumes / x.square().sum()
    real, synthetic = (v - (size - middle)[:, None] * slope for v, size in zip(sets, sizes, strict=True))
    if protocol == "standard":
        return cohens_d(real, synthetic).value
    variance = (real.var(dim=0, correction=0) + synthetic.var(dim=0, correction=0)) / 2
    return (real.mean(dim=0) - synthetic.mean(dim=0)) / variance.sqrt()


def effect_sizes(
    real: Tensor,
    synthetic: Tensor,
    real_icv: Tensor,
    synthetic_icv: Tensor,
    protocol: Literal["standard", "paper"] = "standard",
    draws: int = 1000,
    seed: int = 0,
) -> Estimate:
    """`adjusted_effects` and their 95 % bootstrap intervals.

    The interval is the 2.5th and 97.5th percentile over resamples of each set with replacement, slope and all.

    Arguments:
        draws: resamples; the others, and errors, are those of `adjusted_effects`.
    """
    value = adjusted_effects(real, synthetic, real_icv, synthetic_icv, protocol)

    def again(i: Tensor, j: Tensor) -> Tensor:
        return adjusted_effects(real[i], synthetic[j], real_icv[i], synthetic_icv[j], protocol)

    brains = torch.arange(len(real_icv)), torch.arange(len(synthetic_icv))
    return Estimate(value, *percentiles(again, *brains, draws=draws, seed=seed))


def wasserstein_index(real: Tensor, synthetic: Tensor) -> Tensor:
    """1-Wasserstein distance of each region's volumes after `(V - mean_real) / SD_real`, `[K]`, float64.

    `∫ |F_real - F_synthetic|`, in standard deviations of the real volumes: 0.2 is like a shift by 0.2 SD. The index is
    the mean over regions. Give volumes over ICV, or `adjusted` ones, if head size should not count. It falls with the
    number of brains: compare `same_size` with `real_against_real` (resampling.py). A region of constant real volume is
    NaN. Errors are those of `two_sets`.
    """
    real, synthetic = two_sets(real, synthetic, "the Wasserstein index", rows=VOLUMES)
    scale = real.std(dim=0)
    pairs = zip(real.T.numpy(), synthetic.T.numpy(), strict=True)
    distance = torch.tensor([wasserstein_distance(r, s) for r, s in pairs], dtype=torch.float64)
    return torch.where(scale > 0, distance / scale, torch.nan)


def wasabi(real: Tensor, synthetic: Tensor) -> float:
    """WASABI as its authors compute it (arXiv 2504.21771): squared 2-Wasserstein distance over all regions at once.

    `min over pairings of the mean |r_i - s_p(i)|²`, after synthetic volumes are multiplied by the ratio of the means
    over all brains and regions; no region is standardized, so the largest ones count most. Times 10^4, as printed.

    Arguments:
        real, synthetic: volumes as shares of ICV, `[N, K]` each, of as many brains (there, 500 of each).

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if the numbers of brains differ.
    """
    real, synthetic = two_sets(real, synthetic, "WASABI", 1, VOLUMES)
    if len(real) != len(synthetic):
        raise UserError(f"WASABI pairs as many real as synthetic brains, got {len(real)} and {len(synthetic)}")
    cost = torch.cdist(real, synthetic * (real.mean() / synthetic.mean())).square().numpy()
    return float(np.mean(cost[linear_sum_assignment(cost)])) * 1e4
