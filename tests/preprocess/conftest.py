"""Small scans with known truth: the template as a scanner would see it through a known affine."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import load_template
from cortexgen.io import Grid
from cortexgen.io.nifti import to_memory
from cortexgen.spatial import resample


@dataclass
class Native:
    """A stripped brain in a scanner's space."""

    image: torch.Tensor
    grid: Grid
    affine: np.ndarray  # template point to image point, RAS mm


@pytest.fixture(scope="session")
def template():
    """The MNI152 template at 3 mm, on which these tests are fast."""
    full = load_template()
    return full.to(full.grid.at_spacing(3))


def known_affine(angles=(12, -8, 14), scales=(0.94, 0.88, 0.85), shears=(0.05, -0.03, 0.04), shift=(12, 25, -20)):
    """Rotation, scale, shear and shift."""
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = shears
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(scales) @ shear
    affine[:3, 3] = shift
    return affine


def seen(image, grid, affine, spacing=(3.0, 3.0, 3.0), codes="LAS"):
    """An image of template space through `affine`, sampled on an upright grid around it."""
    size = np.array(spacing)
    signs = np.array([1 if c in "RAS" else -1 for c in codes])
    low, high = -np.array([95.0, 110, 95]), np.array([95.0, 110, 95])
    axes = np.diag([*(signs * size), 1.0])
    axes[:3, 3] = apply_affine(affine, [0, -18, 8.0]) + np.where(signs > 0, low, high)
    _, target = to_memory(np.zeros(tuple(np.ceil((high - low) / size).astype(int)), np.float32), axes)
    inside = torch.from_numpy(np.linalg.inv(affine) @ target.affine)
    return resample(image[None], grid.torch_affine, target.shape, inside)[0], target


@pytest.fixture(scope="session")
def native(template) -> Native:
    """The template with a coil's shading and noise, in intensities of a scanner, at 3 mm."""
    full = load_template()
    affine = known_affine()
    image, grid = seen(full.image, full.grid, affine)
    coil = torch.linspace(0.8, 1.2, grid.shape[0]).view(1, -1, 1, 1)
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    image = normalize(torch.where(image > 0.02, (image * coil + noise).clamp(min=1e-3), 0.0))
    return Native(1000 * image, grid, affine)
