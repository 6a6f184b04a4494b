"""A Gaussian prior of smooth fields, and what it says of a noisy one."""

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cortexgen.diffusion.schedule import _like, alpha_sigma
from cortexgen.spatial.precision import full_precision

LEVELS = 256  # log-SNRs whose factors are kept; sampling comes back to the same few
COLUMNS = 1 << 16  # of the modes that are worked on at once


@cache
def _cosines(n: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II, `[n, n]`, a row a frequency."""
    k, x = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = torch.cos(torch.pi * k * (x + 0.5) / n) * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.float().to(device)


def cosine_transform(x: Tensor, inverse: bool = False) -> Tensor:
    """The orthonormal DCT-II of `[*, D, H, W]` along its last three axes, or its inverse; float32."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        for axis in (-3, -2, -1):
            matrix = _cosines(x.shape[axis], x.device)
            x = (x.movedim(axis, -1) @ (matrix if inverse else matrix.T)).movedim(-1, axis)
    return x


def low_frequencies(shape: torch.Size, cutoff: float) -> Tensor:
    """Which cosine coefficients of `[C, D, H, W]` have a frequency below `cutoff` cycles a voxel, flat bool."""
    axes = [torch.arange(n) / (2 * n) for n in shape[1:]]
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(dim=0).sqrt()
    return (frequency < cutoff).expand(shape).flatten()


class Posterior(NamedTuple):
    """What a denoiser says of x given z.

    Attributes:
        mean: `[B, C, D, H, W]`.
        size: root mean square a voxel that `x - mean` is expected to have, `[B, 1, 1, 1, 1]`.
    """

    mean: Tensor
    size: Tensor


class GaussianPrior(nn.Module):
    """`x ~ N(0, Σ)`, `Σ = U Uᵀ + S`: principal modes of the training fields over a stationary remainder.

    S is diagonal in the cosine basis, so that a field which no training subject has is as likely as another of the
    same smoothness; the modes hold what heads do as a whole, and what a region's shape is. (Ensemble filters in
    meteorology call it a hybrid covariance: Hamill & Snyder, Monthly Weather Review 2000.) A network that predicts
    what this prior leaves over, in units of its expected size, generalizes v-prediction: with an isotropic prior of
    unit variance the posterior mean of x is `alpha z`, its deviation sigma, and the residual `(x - alpha z) / sigma`
    is -v.

    As a module it is the best denoiser of such fields; its numbers are buffers, the cutoff is part of its making.

    Arguments:
        spectrum: S, the remainder's variance of each cosine coefficient, `[C, D, H, W]`.
        modes: U, `[K, p]`, the low frequencies of each mode, in the order of `low_frequencies`.
        cutoff: of those frequencies, in cycles a voxel.
    """

    spectrum: Tensor
    modes: Tensor
    low: Tensor

    def __init__(self, spectrum: Tensor, modes: Tensor, cutoff: float) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.register_buffer("spectrum", spectrum)
        self.register_buffer("modes", modes.float())
        low = low_frequencies(spectrum.shape, self.cutoff).to(spectrum.device)
        self.register_buffer("low", low, persistent=False)
        self._cores: dict[float, tuple[Tensor, Tensor]] = {}
        self.register_load_state_dict_post_hook(GaussianPrior._forget)

    def _forget(self, _: Any = None) -> None:
        """What was worked out of other numbers, or on another device."""
        self._cores.clear()

    def _apply(self, *args: Any, **options: Any) -> "GaussianPrior":
        before = self.spectrum
        super()._apply(*args, **options)
        if self.spectrum is not before:  # going to where it is changes nothing
            self._forget()
        return self

    @classmethod
    def of(cls, power: Tensor, modes: Tensor, cutoff: float) -> "GaussianPrior":
        """From the mean square of each cosine coefficient, `[C, D, H, W]`: the remainder is what the modes leave of it.

        It is smoothed over neighbouring frequencies, and keeps its sum.
        """
        rest = power.flatten().clone()
        rest[low_frequencies(power.shape, cutoff)] -= modes.square().sum(dim=0)
        rest = rest.clamp(min=1e-12).view_as(power)
        spectrum = F.avg_pool3d(rest.log()[None], 3, stride=1, padding=1, count_include_pad=False)[0].exp()
        return cls(spectrum * rest.sum() / spectrum.sum(), modes, cutoff)  # geometric means fall short

    def state(self) -> dict[str, Tensor | float]:
        """What the constructor takes."""
        return {"spectrum": self.spectrum, "modes": self.modes, "cutoff": self.cutoff}

    @full_precision
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A draw of x, `[C, D, H, W]`."""
        noise = torch.randn(self.spectrum.shape, generator=generator).to(self.spectrum)
        coefficients = (self.spectrum.sqrt() * noise).flatten()
        coefficients[self.low] += torch.randn(len(self.modes), generator=generator).to(noise) @ self.modes
        return cosine_transform(coefficients.view_as(noise), inverse=True)

    def forward(self, z: Tensor, log_snr: Tensor) -> Posterior:
        """Mean of x given `z = alpha x + sigma eps`, and the size of what it leaves.

        With A = alpha² S + sigma² I and `C = (I + alpha² Uᵀ A⁻¹ U)⁻¹`, by the Woodbury identity, the modes' scores are
        expected to be `g = alpha C Uᵀ A⁻¹ z`, and x `U g + alpha S A⁻¹ (z - alpha U g)`; nothing cancels.

        Arguments:
            z: `[B, C, D, H, W]`.
            log_snr: `[B]`.

        Returns:
            The mean `alpha Σ (alpha² Σ + sigma² I)⁻¹ z`, like z, and the size of `x - mean` under the prior.
        """
        with torch.autocast(z.device.type, enabled=False):
            scaled = cosine_transform(z).flatten(1)
            mean, size = torch.empty_like(scaled), scaled.new_empty(len(z))
            spectrum, levels = self.spectrum.flatten(), log_snr.tolist()
            for level in dict.fromkeys(levels):
                here = [b for b, other in enumerate(levels) if other == level]
                alpha, sigma, total, core, size[here] = self._level(level)
                inside = scaled[here] / total
                scores = alpha * inside[:, self.low] @ self.modes.T @ core
                inside *= alpha * spectrum
                inside[:, self.low] += (scores @ self.modes) * (sigma**2 / total[self.low])
                mean[here] = inside
            return Posterior(cosine_transform(mean.view_as(z), inverse=True), _like(size, z))

    def _level(self, log_snr: float) -> tuple[float, float, Tensor, Tensor, Tensor]:
        """alpha, sigma, A's diagonal, C, and the size of what is left, at one level; C and the size are kept."""
        alpha, sigma = (float(c) for c in alpha_sigma(torch.tensor(log_snr, dtype=torch.float64)))
        spectrum = self.spectrum.flatten()
        total = alpha**2 * spectrum + sigma**2
        if log_snr not in self._cores:
            if len(self._cores) >= LEVELS:
                self._cores.clear()
            once, twice = (self.spectrum.new_zeros(2, len(self.modes), len(self.modes))).unbind()
            inverse = 1 / total[self.low]
            for modes, weight in zip(self.modes.split(COLUMNS, dim=1), inverse.split(COLUMNS), strict=True):
                weighted = modes * weight
                once += weighted @ modes.T
                seen = sigma**2 * weighted
                twice += seen @ seen.T
            core = torch.linalg.inv(torch.eye(len(self.modes), device=total.device) + alpha**2 * once)
            left = (spectrum * sigma**2 / total).sum() + (core * twice).sum()
            self._cores[log_snr] = core, (left / spectrum.numel()).sqrt()
        return alpha, sigma, total, *self._cores[log_snr]
