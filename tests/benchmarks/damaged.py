"""What damages do to a brain."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.metrics.gaussian import gaussian
from cortexgen.spatial import folded, identity, integrate, warp, warp_labels

NEAR, FAR = 3.0, 14.0  # mm, Gaussians of where ventricles grow and of what gives way
STRONGEST = 4.0  # flow that is tried
MET = 0.03  # relative error of a ventricle's volume
TRACE = 0.01  # standard deviation of the noise that tells copies apart


class Brain(NamedTuple):
    """An image `[1, D, H, W]` in [0, 1], its labels, and the grid of both."""

    image: Tensor
    labels: Tensor
    grid: Grid


Change = Callable[[Brain, torch.Generator], Brain]


def untouched(brain: Brain, random: torch.Generator) -> Brain:
    """The brain."""
    return brain


def blurred(brain: Brain, random: torch.Generator, mm: float) -> Brain:
    """The image smoothed by a Gaussian, over the edge of the brain too."""
    return brain._replace(image=gaussian(brain.image[None], mm / brain.grid.spacing[0])[0])


def noisy(brain: Brain, random: torch.Generator, sd: float) -> Brain:
    """The magnitude of the image with complex noise, where there is brain."""
    real, imaginary = (torch.randn(brain.image.shape, generator=random) * sd for _ in range(2))
    return brain._replace(image=torch.hypot(brain.image + real, imaginary) * (brain.image > 0))


def shifted(brain: Brain, random: torch.Generator, mm: float) -> Brain:
    """Image and labels moved to the right."""
    voxels = round(mm / brain.grid.spacing[2])
    if brain.image[..., -voxels:].any():
        raise UserError(f"a shift by {mm:g} mm would push the brain out of its grid, {brain.grid}")
    image, labels = (volume.roll(voxels, -1) for volume in brain[:2])
    return Brain(image, labels, brain.grid)


def mirrored(brain: Brain, random: torch.Generator) -> Brain:
    """Left and right swapped, about x = 0."""
    return Brain(brain.image.flip(-1), brain.labels.flip(-1), brain.grid)


def traced(brain: Brain, random: torch.Generator, mirror: bool = False) -> Brain:
    """The brain again with a trace of noise and a gain of 0.95 to 1, so that no file equals its original."""
    brain = mirrored(brain, random) if mirror else brain
    gain = 1 - 0.05 * float(torch.rand(1, generator=random))
    return brain._replace(image=noisy(brain, random, TRACE).image * gain)


def swelling(labels: Tensor, grid: Grid, ventricle: int) -> Tensor:
    """A velocity that makes the ventricles grow and their surroundings give way, `[1, 3, D, H, W]` in voxels.

    The gradient of the potential whose Laplacian is the ventricles' mask, smoothed by a narrow Gaussian, less the same
    smoothed by a wide one: nothing flows far away. As a pull-back it points to where the tissue came from. At strength
    1, ventricles much larger than the narrow Gaussian grow by about e.
    """
    waves = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(n) * 2 * torch.pi for n in grid.shape), indexing="ij"))
    square = waves.square().sum(dim=0)
    near, far = (torch.exp(-square * (mm / grid.spacing[0]) ** 2 / 2) for mm in (NEAR, FAR))
    growth = torch.fft.fftn((labels[0] == ventricle).float()) * (near - far)
    return torch.fft.ifftn(1j * waves * growth / square.clamp(min=1e-6), dim=(1, 2, 3)).real[None]


def enlarged(brain: Brain, random: torch.Generator, factor: float, ventricle: int) -> Brain:
    """The lateral ventricles larger by a factor, image and labels warped by a flow without folds.

    Raises:
        UserError: if the factor isn't met, or the flow folds.
    """
    velocity = swelling(brain.labels, brain.grid, ventricle)
    before, classes = int((brain.labels == ventricle).sum()), int(brain.labels.max()) + 1

    def flow(strength: float) -> tuple[Tensor, Tensor, float]:
        displacement = integrate(strength * velocity)
        labels, _ = warp_labels(brain.labels[None], identity(brain.grid.shape) + displacement, classes)
        return displacement, labels[0], int((labels == ventricle).sum()) / before

    strength = brentq(lambda s: flow(s)[2] - factor, 0, STRONGEST, xtol=0.01)
    displacement, labels, found = flow(strength)
    folds = int(folded(displacement))
    if abs(found / factor - 1) > MET or folds:
        raise UserError(f"ventricles grow by {found:.2f}, expected {factor:g}, and {folds} cubes of voxels fold")
    return Brain(warp(brain.image[None], displacement)[0], labels, brain.grid)


def smoothed(brain: Brain, random: torch.Generator, mm: float, cortex: int, white: int) -> Brain:
    """The cortex as an average's: smoothed, image and border alike; what lies inside and outside of it stays."""
    sigma = mm / brain.grid.spacing[0]
    ribbon, inner = (brain.labels == cortex).float(), (brain.labels == white).float()
    share = gaussian(ribbon[None], sigma)[0].clamp(max=1)
    image = brain.image + share * (gaussian(brain.image[None], sigma)[0] - brain.image)
    whites, either = gaussian(torch.cat([inner, ribbon])[:, None], sigma)[:, 0], (ribbon + inner) > 0
    labels = brain.labels.clone()
    labels[either] = torch.where(whites[:1] > whites[1:], white, cortex)[either]
    return brain._replace(image=image * (brain.image > 0), labels=labels)


def flattened(brain: Brain, random: torch.Generator, percent: float, cortex: int, white: int) -> Brain:
    """Intensities mapped in straight pieces, grey matter's nearer to white matter's."""
    levels = [float(brain.image[brain.labels == k].median()) for k in (cortex, white)]
    moved = levels[0] + percent / 100 * (levels[1] - levels[0])
    image = np.interp(brain.image.numpy(), [0, *levels, 1], [0, moved, levels[1], 1]).astype(np.float32)
    return brain._replace(image=torch.from_numpy(image))


def mislabelled(brain: Brain, random: torch.Generator, percent: float) -> Brain:
    """Labelled voxels that take the label of one of their six neighbours."""
    hit = (torch.rand(brain.labels.shape, generator=random) < percent / 100) & (brain.labels > 0)
    which = torch.randint(6, brain.labels.shape, generator=random)
    labels = brain.labels.clone()
    for k in range(6):
        neighbour = brain.labels.roll((-1, 1)[k % 2], 1 + k // 2)
        labels = torch.where(hit & (which == k), neighbour, labels)
    return brain._replace(labels=labels)
