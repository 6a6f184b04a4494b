"""A scan's affine to the template: whether it needs one, what it is, and whether it can be believed.

The affine maximizes the correlation of local contrast, each voxel divided by its neighbourhood's mean, inside the
template's brain and a rim around it: a receive coil's shading doesn't pull on it, nor what skull-stripping left of neck
and orbits. It starts from centres of mass and several pitches of the head, as a similarity, from coarse to fine.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.data.template import BRAIN_FOREGROUND, Template
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.itk import LPS
from cortexgen.spatial import antialias, resample

PITCHES = (-30.0, 0.0, 30.0)  # degrees about the left-right axis: how heads lie in a scanner
START = 8.0  # mm, of the similarity
LEVELS = ((8.0, False, 100), (4.0, True, 50), (3.0, True, 20))  # spacing in mm, local contrast, iterations
RIM = 8.0  # mm around the template's brain that must be dark in the image
NEIGHBOURHOOD = 50.0  # mm, half the width of a local mean


@dataclass(frozen=True)
class Agreement:
    """How a scan, carried by an affine, fits the template.

    Attributes:
        overlap: Dice of the two foregrounds.
        correlation: of local contrast, inside the template's brain.
    """

    overlap: float
    correlation: float


def _at(image: Tensor, grid: Grid, spacing: float) -> tuple[Tensor, Grid]:
    """An image `[1, D, H, W]` as `[d, h, w]` on an isotropic grid over its box."""
    target = grid.at_spacing(spacing)
    return resample(image[None], grid.torch_affine, target.shape, target.torch_affine)[0, 0], target


def local_contrast(image: Tensor, grid: Grid) -> Tensor:
    """An image `[D, H, W]` divided by the mean of the foreground nearby; 0 outside, at most 2."""
    factors = [NEIGHBOURHOOD / s for s in grid.spacing]
    inside = (image > BRAIN_FOREGROUND).float()
    total, weight = (antialias(v[None, None], factors)[0, 0] for v in (image * inside, inside))
    mean = total / weight.clamp(min=0.02)
    return (inside * image / mean.clamp(min=BRAIN_FOREGROUND)).clamp(max=2)


def _centre(image: Tensor, grid: Grid) -> np.ndarray:
    """The centre of mass of `[D, H, W]`, LPS millimetres."""
    mass = image.double()
    sums = [mass.movedim(axis, 0).flatten(1).sum(dim=1) for axis in range(3)]
    index = [float(s @ torch.arange(len(s), dtype=torch.float64) / s.sum()) for s in sums]
    return LPS @ (grid.affine @ np.array([*index, 1.0]))[:3]


def _to_sitk(image: Tensor, grid: Grid) -> sitk.Image:
    """`[D, H, W]` for SimpleITK, whose first axis is the last one in memory, and whose world is LPS."""
    spacing = np.array(grid.spacing[::-1])
    out = sitk.GetImageFromArray(image.numpy())
    out.SetSpacing(spacing.tolist())
    out.SetOrigin((LPS @ grid.affine[:3, 3]).tolist())
    out.SetDirection((LPS @ grid.affine[:3, 2::-1] / spacing).ravel().tolist())
    return out


class _Level:
    """Template and image at one spacing."""

    def __init__(self, image: Tensor, grid: Grid, template: Template, spacing: float, local: bool = False) -> None:
        fixed, fixed_grid = _at(template.image, template.grid, spacing)
        moving, moving_grid = _at(image, grid, spacing)
        self.spacing = spacing
        reach = round(RIM / spacing)
        near = F.max_pool3d((fixed > BRAIN_FOREGROUND).float()[None], 2 * reach + 1, 1, reach)[0]
        self.centres = _centre(fixed, fixed_grid), _centre(moving, moving_grid)
        volumes = [
            float((v > BRAIN_FOREGROUND).sum()) * g.voxel_volume
            for v, g in ((fixed, fixed_grid), (moving, moving_grid))
        ]
        self.size = float(np.clip((volumes[1] / volumes[0]) ** (1 / 3), 0.75, 1.2))
        if local:
            fixed, moving = local_contrast(fixed, fixed_grid), local_contrast(moving, moving_grid)
        self.fixed, self.moving = _to_sitk(fixed, fixed_grid), _to_sitk(moving, moving_grid)
        self.mask = _to_sitk(near.to(torch.uint8), fixed_grid)

    def improve(self, transform: sitk.Transform, iterations: int = 100) -> float:
        """Move a transform, in place, to a minimum of the negative squared correlation, which is returned."""
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfWorkUnits(1)  # sums in one order: the same bytes each time
        method.SetMetricAsCorrelation()
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetMetricFixedMask(self.mask)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0,
            minStep=1e-4,
            numberOfIterations=iterations,
            relaxationFactor=0.7,
            gradientMagnitudeTolerance=1e-9,
            estimateLearningRate=method.EachIteration,
            maximumStepSizeInPhysicalUnits=self.spacing / 2,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        method.Execute(self.fixed, self.moving)
        return float(method.GetMetricValue())


def align(image: Tensor, grid: Grid, template: Template, source: object = "image") -> np.ndarray:
    """The affine that takes the template's points to the image's; the same bytes for the same input.

    Arguments:
        image: a skull-stripped T1w, `[1, D, H, W]` float32 in [0, 1], of any voxel size and orientation.
        source: what to name in an error.

    Returns:
        4x4, float64, world millimetres (RAS): x = A y with y in the template.

    Raises:
        UserError: if image and template don't overlap whatever is tried.
    """
    level = _Level(image, grid, template, START)
    (fixed, moving), starts = level.centres, []
    try:
        for pitch in PITCHES:
            start = sitk.Similarity3DTransform(
                level.size, (1.0, 0.0, 0.0), np.deg2rad(pitch), (moving - fixed).tolist(), fixed.tolist()
            )
            starts.append((level.improve(start), pitch, start))
        best = min(starts, key=lambda s: s[:2])[2]
        affine = sitk.AffineTransform(best.GetMatrix(), best.GetTranslation(), best.GetCenter())
        for spacing, local, iterations in LEVELS:
            _Level(image, grid, template, spacing, local).improve(affine, iterations)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{source}: no affine to {template.name} was found ({reason}); is it a brain?") from error
    world = np.eye(4)
    world[:3, :3] = LPS @ np.array(affine.GetMatrix()).reshape(3, 3) @ LPS
    world[:3, 3] = LPS @ np.array(affine.TransformPoint((0.0, 0.0, 0.0)))
    return world


def agreement(
    image: Tensor, grid: Grid, template: Template, affine: np.ndarray | None = None, spacing: float = 3.0
) -> Agreement:
    """How an image `[1, D, H, W]` fits the template under an affine (RAS; the identity unless given)."""
    fixed, target = _at(template.image, template.grid, spacing)
    moved = Grid(grid.shape, grid.affine if affine is None else np.linalg.inv(affine) @ grid.affine)
    moving = resample(image[None], moved.torch_affine, target.shape, target.torch_affine)[0, 0]
    a, b = fixed > BRAIN_FOREGROUND, moving > BRAIN_FOREGROUND
    overlap = 2 * float((a & b).sum()) / float(a.sum() + b.sum())
    pair = torch.stack([local_contrast(fixed, target)[a], local_contrast(moving, target)[a]])
    return Agreement(overlap, float(torch.corrcoef(pair)[0, 1].nan_to_num()))
