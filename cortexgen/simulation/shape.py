"""Random anatomies: diffeomorphisms of a template whose regional volumes vary as those of real brains do.

A stationary velocity v is the sum of smooth Gaussian noise at three scales and of one field a region,
`-grad(inverse Laplacian of the region's smoothed indicator)`, which makes that region grow: the forward map exp(-v)
expands at the rate -div v. The weights of these fields are solved for, so that the volume of each region in the
subject, noise included, is what the model below asks for:

    log(volume / template's) = size + slope * (age - 50) / 10 + residual

with age uniform in 20-80 years, and both sexes equally likely. Of the total variance (`VARIATION`) size and age take
their parts, the residual the rest; residuals of one group (`GROUPS`) are correlated. The brain as a whole (the skull)
changes by `size` alone: sulcal CSF makes room for what the regions do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.spatial import integrate, jacobian_determinant, present_labels, resample, stencil_determinants

INTEGRATION_STEPS = 7
AGE_RANGE = (20.0, 80.0)
# Name: (standard deviation of the log volume, change of the log volume per decade of age). The deviations are those of
# 56 adults (19-55 years) of OpenNeuro ds002748 v1.0.5 (CC0) after affine normalisation, at 2 mm. So are, rounded, the
# slopes of lateral and third ventricle, cortex and nuclei; those of inferior ventricle, hippocampus and amygdala, where
# the 56 show none, are set by hand to sizes usual in samples that include the old.
VARIATION = {
    "Cerebral-White-Matter": (0.038, 0.0),
    "Cerebral-Cortex": (0.037, -0.020),
    "Lateral-Ventricle": (0.301, 0.120),
    "Inferior-Lateral-Ventricle": (0.204, 0.060),
    "Cerebellum-White-Matter": (0.141, 0.0),
    "Cerebellum-Cortex": (0.129, 0.0),
    "Thalamus": (0.062, -0.020),
    "Caudate": (0.085, -0.020),
    "Putamen": (0.063, -0.020),
    "Pallidum": (0.075, 0.0),
    "3rd-Ventricle": (0.294, 0.100),
    "4th-Ventricle": (0.180, 0.0),
    "Brain-Stem": (0.061, 0.0),
    "Hippocampus": (0.066, -0.025),
    "Amygdala": (0.077, -0.010),
    "Accumbens-area": (0.086, -0.020),
    "VentralDC": (0.047, 0.0),
}
# Correlation of the residuals inside a group, rounded from the same 56.
GROUPS = (
    (0.5, ("Lateral-Ventricle", "Inferior-Lateral-Ventricle", "3rd-Ventricle")),
    (0.7, ("Cerebellum-White-Matter", "Cerebellum-Cortex")),
    (0.35, ("Thalamus", "Caudate", "Putamen", "Pallidum", "Accumbens-area", "VentralDC", "Brain-Stem")),
)
MIN_RESIDUAL = 0.3  # of the total deviation, where age and size would leave less
# What is left of head size after the affine to the template: log volume of men over women, and deviation in each sex.
SIZE_SEX, SIZE_SD = 0.03, 0.012
# The part of head size that the affine takes away, as log volume: mean, men over women, deviation in each sex. With
# the size above: brains 16 % larger in men, and 6 % deviation in each sex, as in the same 56.
HEAD_MEAN, HEAD_SEX, HEAD_SD = -0.3, 0.115, 0.055
# Shape noise of the velocity: (Gaussian smoothing, deviation of each component), both in millimetres.
NOISE = ((8.0, 0.9), (14.0, 1.0), (30.0, 1.2))
REGION_SMOOTHING = 5.0  # millimetres
TAPER = (4.0, 28.0)  # distance from the brain, in millimetres, at which the velocity begins and ends to fade
RIM = 12.0  # distance from the grid's rim below which it fades
MIN_DETERMINANT = 0.05  # over the ten of each voxel of the velocity's grid; finer grids then have no fold either


@dataclass(frozen=True)
class Anatomy:
    """What is computed once a template: see `prepare`.

    Attributes:
        grid: of velocities.
        classes: names of the R regions, those of the template that `VARIATION` knows.
        fractions: `[R + 1, d, h, w]`, the share of each region in each voxel; last the rest of the brain (CSF).
        basis: `[R + 1, 3, d, h, w]`, a velocity in voxels that makes each region grow.
        solve: `[R + 1, R + 1]`, weights of `basis` from log volume changes.
        taper: `[d, h, w]` in [0, 1], zero away from the brain.
        noise: spectrum of the shape noise, on a padded grid.
    """

    grid: Grid
    classes: tuple[str, ...]
    fractions: Tensor
    basis: Tensor
    solve: Tensor
    taper: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Subject:
    """A simulated anatomy.

    Attributes:
        age: years.
        sex: "F" or "M".
        velocity: `[3, d, h, w]` in voxels of `Anatomy.grid`; `exp(v) - id` in `INTEGRATION_STEPS` steps warps the
            template onto the subject.
        log_growth: `[R + 1]`, log of each region's volume over the template's, measured on the field; last the CSF.
        head_scale: volume in native space over volume in the template's space, what an affine would have removed.
        brain_volume_ml: native volume of the brain: the integral of `|J exp(-v)|` over the template's, times that.
    """

    age: float
    sex: str
    velocity: Tensor
    log_growth: Tensor
    head_scale: float
    brain_volume_ml: float


def known_regions(template: Template) -> list[int]:
    """Classes of a template's labels that `VARIATION` has a name for.

    Raises:
        UserError: if the template has no labels or none that is known.
    """
    present = [] if template.labels is None else present_labels(template.labels).tolist()
    known = [k for k in present if template.classes[k] in VARIATION]
    if not known:
        raise UserError(f"{template.name}: a simulation needs labels with names such as {', '.join(VARIATION)}")
    return known


def prepare(template: Template, spacing: float = 4.0) -> Anatomy:
    """Measure a template: where its regions are, and which velocities make them grow.

    Arguments:
        template: with labels, of which at least one has a name in `VARIATION`; best at full resolution.
        spacing: of velocities, in millimetres.

    Raises:
        UserError: if the template has no known labels, or no CSF around them.
    """
    known = known_regions(template)
    assert template.labels is not None  # or there were no known regions
    grid = template.grid.at_spacing(spacing)
    regions = [template.labels == k for k in known]
    regions.append(template.mask & ~torch.stack(regions).any(dim=0))
    if not regions[-1].any():
        raise UserError(f"{template.name}: nothing of the brain is left beside its labels, expected sulcal CSF")
    affines = template.grid.torch_affine, grid.torch_affine
    fractions = torch.cat([resample(r[None].float(), affines[0], grid.shape, affines[1])[0] for r in regions])
    taper = _taper(fractions.sum(dim=0) > 0.5, spacing)
    wave = wave_vectors([n + n // 2 for n in grid.shape])
    basis = torch.stack([_grow(f, wave, REGION_SMOOTHING / spacing) * taper for f in fractions])
    response = _rate(basis, fractions)
    classes = tuple(template.classes[k] for k in known)
    noise = noise_spectrum(wave, [(scale / spacing, sd / spacing) for scale, sd in NOISE])
    return Anatomy(grid, classes, fractions, basis, torch.linalg.inv(response.T), taper, noise)


def simulate_subject(
    anatomy: Anatomy, seed: int, index: int, age: float | None = None, sex: str | None = None
) -> Subject:
    """Draw a subject; it depends on the arguments alone.

    Arguments:
        anatomy: from `prepare`.
        seed, index: of the cohort, and of the subject in it.
        age, sex: in years and "F" or "M"; drawn unless given.

    Raises:
        RuntimeError: if twenty draws are all folded.
    """
    rng = np.random.default_rng([seed, index])
    drawn_age, drawn_sex = rng.uniform(*AGE_RANGE), "FM"[rng.integers(2)]
    age, sex = drawn_age if age is None else age, drawn_sex if sex is None else sex
    man = 0.5 if sex == "M" else -0.5
    for _ in range(20):
        size = SIZE_SEX * man + SIZE_SD * rng.standard_normal()
        head_scale = float(np.exp(HEAD_MEAN + HEAD_SEX * man + HEAD_SD * rng.standard_normal()))
        target = _targets(anatomy, rng, age, size)
        noise = smooth_noise(rng, anatomy.noise, 3, anatomy.grid.shape) * anatomy.taper
        weights: Tensor | int = 0
        growth = _rate(noise[None], anatomy.fractions)[0]
        for _ in range(3):  # more than once, as the growth is not linear in the velocity
            weights = weights + anatomy.solve @ (target - growth)
            velocity = noise + torch.tensordot(weights, anatomy.basis, 1)
            growth = _growth(anatomy, velocity)
        if stencil_determinants(integrate(velocity[None], INTEGRATION_STEPS)).min() > MIN_DETERMINANT:
            break
    else:
        raise RuntimeError(f"subject {index} of seed {seed}: twenty draws, and each is folded")
    volumes = anatomy.fractions.sum(dim=(1, 2, 3)) * anatomy.grid.voxel_volume / 1000
    brain = float((volumes * growth.exp()).sum()) * head_scale
    return Subject(float(age), sex, velocity, growth, head_scale, brain)


def _targets(anatomy: Anatomy, rng: np.random.Generator, age: float, size: float) -> Tensor:
    """Log volume changes `[R + 1]` asked for."""
    z = {name: rng.standard_normal() for name in VARIATION}
    for correlation, members in GROUPS:
        shared = rng.standard_normal()
        z |= {name: np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * z[name] for name in members}
    age_sd = (AGE_RANGE[1] - AGE_RANGE[0]) / np.sqrt(12)
    changes = []
    for name in anatomy.classes:
        sd, slope = VARIATION[name]
        rest = sd**2 - (slope * age_sd / 10) ** 2 - SIZE_SD**2 - (SIZE_SEX / 2) ** 2
        changes.append(slope * (age - 50) / 10 + np.sqrt(max(rest, (MIN_RESIDUAL * sd) ** 2)) * z[name])
    volumes = anatomy.fractions.sum(dim=(1, 2, 3)).double()
    regions = torch.tensor(changes, dtype=torch.float64)
    csf = 1 - (volumes[:-1] * regions.expm1()).sum() / volumes[-1]
    return (torch.cat([regions, csf.clamp(min=0.5).log()[None]]) + size).float()


def _growth(anatomy: Anatomy, velocity: Tensor) -> Tensor:
    """Log of each region's volume in the subject over the template's, `[R + 1]`."""
    jacobian = jacobian_determinant(integrate(-velocity[None], INTEGRATION_STEPS))[0, 0]
    f = anatomy.fractions
    return (torch.einsum("rdhw,dhw->r", f, jacobian) / f.sum(dim=(1, 2, 3))).log()


def _rate(velocities: Tensor, fractions: Tensor) -> Tensor:
    """Mean of -div v over each region, of fields `[B, 3, d, h, w]`: `[B, R + 1]`."""
    divergence = sum(torch.gradient(velocities[:, i], dim=i + 1)[0] for i in range(3))
    return -torch.einsum("rdhw,bdhw->br", fractions, divergence) / fractions.sum(dim=(1, 2, 3))


def wave_vectors(shape: Sequence[int]) -> Tensor:
    """Wave vectors `[3, ...]` of the real Fourier transform of a grid, radians a voxel; its last side is made even."""
    axes = [torch.fft.fftfreq(n) for n in shape[:2]] + [torch.fft.rfftfreq(shape[2] + shape[2] % 2)]
    return 2 * torch.pi * torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _size(wave: Tensor) -> tuple[int, int, int]:
    d, h, w = wave.shape[-3:]
    return d, h, 2 * (w - 1)


def _grow(growth: Tensor, wave: Tensor, smoothing: float) -> Tensor:
    """The curl-free velocity of which -div is `growth` `[d, h, w]` smoothed by `smoothing` voxels: `[3, d, h, w]`."""
    square = (wave**2).sum(dim=0)
    spectrum = torch.fft.rfftn(growth, _size(wave)) * torch.exp(-0.5 * smoothing**2 * square)
    gradient = 1j * wave * spectrum / square.clamp(min=1e-12)
    d, h, w = growth.shape
    return torch.fft.irfftn(gradient, _size(wave), dim=(1, 2, 3))[:, :d, :h, :w]


def noise_spectrum(wave: Tensor, scales: Sequence[tuple[float, float]]) -> Tensor:
    """Amplitudes of a sum of Gaussian noises, each white noise smoothed by a Gaussian.

    Arguments:
        wave: from `wave_vectors`.
        scales: of each noise the width of the Gaussian in voxels, and its standard deviation.
    """
    power = torch.zeros(wave.shape[1:])
    for width, sd in scales:
        kernel = torch.exp(-0.5 * width**2 * (wave**2).sum(dim=0))
        power += (sd * kernel) ** 2 / torch.fft.irfftn(kernel, _size(wave)).square().sum()
    return power.sqrt()


def smooth_noise(rng: np.random.Generator, spectrum: Tensor, channels: int, shape: Sequence[int]) -> Tensor:
    """Noise of a spectrum, cut to `[channels, *shape]` from its periodic grid."""
    size = _size(spectrum)
    white = torch.from_numpy(rng.standard_normal((channels, *size), dtype=np.float32))
    smooth = torch.fft.irfftn(torch.fft.rfftn(white, dim=(1, 2, 3)) * spectrum, size, dim=(1, 2, 3))
    d, h, w = shape
    return smooth[:, :d, :h, :w]


def _taper(brain: Tensor, spacing: float) -> Tensor:
    """1 in and near the brain, falling to 0 by a cosine away from it and towards the grid's rim."""

    def ramp(x: Tensor) -> Tensor:
        return 0.5 - 0.5 * torch.cos(torch.pi * x.clamp(0, 1))

    distance = torch.from_numpy(distance_transform_edt(~brain.numpy())).float() * spacing
    taper = ramp((TAPER[1] - distance) / (TAPER[1] - TAPER[0]))
    for axis, n in enumerate(brain.shape):
        i = torch.arange(n)
        shape = [-1 if a == axis else 1 for a in range(3)]
        taper = taper * ramp(torch.minimum(i, n - 1 - i) * spacing / RIM).view(shape)
    return taper
