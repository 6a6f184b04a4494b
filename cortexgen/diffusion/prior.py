"""A Gaussian prior of smooth fields, and what it says of a noisy one."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.diffusion.schedule import _like, alpha_sigma
from cortexgen.spatial.precision import full_precision


@cache
def _cosines(n: int) -> Tensor:
    """The orthonormal DCT-II, `[n, n]`, a row a frequency."""
    k, x = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = torch.cos(torch.pi * k * (x + 0.5) / n) * (2 / n) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.float()


def cosine_transform(x: Tensor, inverse: bool = False) -> Tensor:
    """The orthonormal DCT-II of `[*, D, H, W]` along its last three axes, or its inverse; float32."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        for axis in (-3, -2, -1):
            matrix = _cosines(x.shape[axis]).to(x.device)
            x = (x.movedim(axis, -1) @ (matrix if inverse else matrix.T)).movedim(-1, axis)
    return x


def low_frequencies(shape: torch.Size, cutoff: float) -> Tensor:
    """Which cosine coefficients of `[C, D, H, W]` have a frequency below `cutoff` cycles a voxel, flat bool."""
    axes = [torch.arange(n) / (2 * n) for n in shape[1:]]
    frequency = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(dim=0).sqrt()
    return (frequency < cutoff).expand(shape).flatten()


class GaussianPrior:
    """`x ~ N(0, Σ)`, `Σ = U Uᵀ + S`: principal modes of the training fields over a stationary remainder.

    S is diagonal in the cosine basis, so that a field which no training subject has is as likely as another of the
    same smoothness; the modes hold what heads do as a whole, and what a region's shape is. (Ensemble filters in
    meteorology call it a hybrid covariance: Hamill & Snyder, Monthly Weather Review 2000.) A network that predicts
    what this prior leaves over, in units of its expected size, generalizes v-prediction: with an isotropic prior of
    unit variance the posterior mean of x is `alpha z`, its deviation sigma, and the residual `(x - alpha z) / sigma`
    is -v.

    Arguments:
        spectrum: S, the remainder's variance of each cosine coefficient, `[C, D, H, W]`.
        modes: U, `[K, p]`, the low frequencies of each mode, in the order of `low_frequencies`.
        cutoff: of those frequencies, in cycles a voxel.
    """

    def __init__(self, spectrum: Tensor, modes: Tensor, cutoff: float) -> None:
        self.spectrum, self.modes, self.cutoff = spectrum, modes.float(), float(cutoff)
        self.low = low_frequencies(spectrum.shape, self.cutoff).to(spectrum.device)

    @classmethod
    def fit(cls, fields: Tensor, count: int, trust: float = 0.85, cutoff: float = 0.35) -> "GaussianPrior":
        """From centred fields `[N, C, D, H, W]`; the total variance of each frequency is theirs.

        Arguments:
            count: modes at most; fewer where N is smaller.
            trust: share of each mode's variance that stays in it; the rest joins the remainder, for what the next
                subject has and these don't.
        """
        coefficients = cosine_transform(fields).flatten(1)
        power = coefficients.square().mean(dim=0)
        low = low_frequencies(fields.shape[1:], cutoff)
        inside = coefficients[:, low]
        variances, vectors = torch.linalg.eigh((inside @ inside.T).double() / len(inside))
        kept = min(count, len(inside) - 1)
        scores = vectors.flip(1)[:, :kept].float() / len(inside) ** 0.5
        modes = trust**0.5 * scores.T @ inside  # rows of squared length trust × variance
        modes = modes[variances.flip(0)[:kept] > 1e-9 * variances[-1]]
        power[low] = power[low] - modes.square().sum(dim=0)
        rest = power.clamp(min=1e-12).view(fields.shape[1:])
        spectrum = F.avg_pool3d(rest.log()[None], 3, stride=1, padding=1, count_include_pad=False)[0].exp()
        return cls(spectrum * rest.sum() / spectrum.sum(), modes, cutoff)  # geometric means fall short

    def to(self, device: torch.device) -> "GaussianPrior":
        """On another device, or itself where it is there."""
        if self.spectrum.device == device:
            return self
        return GaussianPrior(self.spectrum.to(device), self.modes.to(device), self.cutoff)

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

    def posterior(self, z: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of x given `z = alpha x + sigma eps`, and the size of what it leaves.

        With A = alpha² S + sigma² I, by the Woodbury identity, `(alpha² Σ + sigma² I)⁻¹ = A⁻¹ - alpha² A⁻¹ U C Uᵀ A⁻¹`
        with `C = (I + alpha² Uᵀ A⁻¹ U)⁻¹`.

        Arguments:
            z: `[B, C, D, H, W]`.
            log_snr: `[B]`.

        Returns:
            The mean `alpha Σ (alpha² Σ + sigma² I)⁻¹ z`, like z, and the root mean square a voxel of `x - mean` under
            the prior, `[B, 1, 1, 1, 1]`.
        """
        with torch.autocast(z.device.type, enabled=False):
            alpha, sigma = (c.to(z.device)[:, None] for c in alpha_sigma(log_snr))
            spectrum = self.spectrum.flatten()
            total = alpha.square() * spectrum + sigma.square()
            scaled = cosine_transform(z).flatten(1) / total
            left = (spectrum * sigma.square() / total).sum(dim=1)
            inside, inverse = scaled[:, self.low], 1 / total[:, self.low]
            eye = torch.eye(len(self.modes), device=z.device)
            for b, a in enumerate(alpha.flatten()):
                weighted = a * self.modes * inverse[b]
                core = torch.linalg.inv(eye + a * weighted @ self.modes.T)
                inside[b] -= (a * core @ (self.modes @ inside[b])) @ weighted
                seen = self.modes * (sigma[b].square() * inverse[b])
                left[b] += (core * (seen @ seen.T)).sum()
            mean = spectrum * scaled
            mean[:, self.low] = spectrum[self.low] * inside + (inside @ self.modes.T) @ self.modes
            scaled_size = (left / spectrum.numel()).sqrt()
            return cosine_transform((alpha * mean).view_as(z), inverse=True), _like(scaled_size, z)
