"""A scan's affine to the template: whether it needs one, what it is, and whether it can be believed.

The affine maximizes the correlation with the template, from coarse to fine and in the end of local contrast (each voxel
by the mean of the tissue around it), so that neither a coil's shading pulls on it nor the fluid that a mask has left.
Only the template's brain and a rim around it are looked at: what skull-stripping left of neck and orbits has no say.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND, Template
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.itk import LPS
from cortexgen.spatial import antialias, grown, resample

START = 8.0  # spacing in mm, of the similarity from which the affine starts
PITCHES = (-30.0, 0.0, 30.0)  # degrees about the left-right axis: how heads lie in a scanner
LEVELS = ((8.0, False, 100), (4.0, True, 50), (3.0, True, 20))  # of the affine: mm, local contrast, iterations
SURROUNDINGS = 50.0  # mm, how far a local mean reaches
TISSUE, ROUNDS = 0.55, 3  # share of the local mean that tissue is brighter than; the mean is that of tissue after three
DARK = (0.45, 0.55)  # shares of it: up to the first nothing counts, from the second on all
GREY = 0.8  # of it, what tissue counts at least
RIM = 8.0  # mm around the template's brain in which an image should be dark
DEPTH, SPACING = 6.0, 4.0  # mm: contrast is compared this deep in the brain, on this grid
TURN = 8.0  # degrees, by which a right affine fits worse

# Measured as (overlap, correlation, lead): 214 brains of two cohorts, 19-82 years old, as they lie in template space
# .92-.97, .52-.73, .03-.18, 47 over 60 among them .95-.97, .55-.71, .03-.18; native ones after their affine .94-.96,
# .56-.76, .04-.14, one with neck and orbits .92, .45, .05. 14 of the brains set wrong: by 10 mm or 8 % in size overlap
# .85-.90; by 10 degrees lead -.28 to -.11, by 5 or 6 -.15 to .00. Other things after their best affine (phantoms,
# shuffled voxels, swapped axes, heads with skull) up to .99, .23, .03; only the template itself, back to front, reaches
# .95, .37, .03.
IN_SPACE = (0.91, 0.45, -0.02)
ALIGNED = (0.9, 0.35, -0.02)
SCALES, STRETCH = (0.65, 1.35), 1.45  # along the affine's principal axes .72-1.05, their ratio up to 1.27


@dataclass(frozen=True)
class Agreement:
    """How well an image fits the template.

    Attributes:
        overlap: Dice of the tissues.
        correlation: of local contrast, inside the brain.
        lead: how much less it is after each turn of `TURN` degrees about an axis; below 0 if a turn would fit better.
    """

    overlap: float
    correlation: float
    lead: float

    def reaches(self, least: tuple[float, float, float]) -> bool:
        """Whether none is below `least`."""
        return self.overlap >= least[0] and self.correlation >= least[1] and self.lead >= least[2]


def align(image: Tensor, grid: Grid, template: Template, source: object = "image") -> np.ndarray:
    """The affine that takes the template's points to the image's: the same bytes for the same input, in one thread.

    Arguments:
        image: a skull-stripped T1w, `[1, D, H, W]` float32 in [0, 1], of any voxel size and orientation.
        source: what to name in an error.

    Returns:
        4x4, float64, world millimetres (RAS): `x = A y`, y in the template. `check_alignment` says if it is right.

    Raises:
        UserError: if the search ends outside the image.
    """
    level = _Level(image, grid, template, START)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # a metric has no setting of its own; sums in one order
    try:
        best = min(map(level.start, PITCHES), key=lambda start: level.improve(start, 100))
        affine = sitk.AffineTransform(best.GetMatrix(), best.GetTranslation(), best.GetCenter())
        for spacing, local, iterations in LEVELS:
            _Level(image, grid, template, spacing, local).improve(affine, iterations)
    except RuntimeError as error:  # SimpleITK's only kind
        reason = str(error).strip().splitlines()[-1]
        raise UserError(f"{source}: found no affine to {template.name} ({reason}); is it a brain?") from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    world = np.eye(4)
    world[:3, :3] = LPS @ np.array(affine.GetMatrix()).reshape(3, 3) @ LPS
    world[:3, 3] = LPS @ np.array(affine.TransformPoint((0.0, 0.0, 0.0)))
    return world


def agreement(image: Tensor, grid: Grid, template: Template, affine: np.ndarray | None = None) -> Agreement:
    """How well an image `[1, D, H, W]` fits the template under an affine of `align`, or as it lies."""
    affine = np.eye(4) if affine is None else affine
    small, grid = _at(image, grid, SPACING)
    overlap, correlation = _fit(small, grid, template, affine)
    turned = max(_fit(small, grid, template, affine @ turn)[1] for turn in _compared(template).turns)
    return Agreement(overlap, correlation, correlation - turned)


def _fit(image: Tensor, grid: Grid, template: Template, affine: np.ndarray) -> tuple[float, float]:
    """Overlap and correlation of an image `[D, H, W]`."""
    target, expected, deep, _ = _compared(template)
    moved = torch.from_numpy(np.linalg.inv(affine)) @ grid.torch_affine
    moving = resample(image[None, None], moved, target.shape, target.torch_affine)[0, 0]
    contrast = local_contrast(moving, target)
    a, b = expected > 0, contrast > 0
    overlap = 2 * float((a & b).sum()) / float(a.sum() + b.sum())
    deep = deep & (moving > BRAIN_FOREGROUND)
    x, y = (v[deep].double() for v in (expected, contrast))
    x, y = x - x.sum() / max(1, len(x)), y - y.sum() / max(1, len(y))
    spread = float(x.norm() * y.norm())
    return overlap, float(x @ y) / spread if spread > 1e-6 else 0.0


class _Compared(NamedTuple):
    """What images are compared with: grid, local contrast and what is deep in the brain of a template, and turns."""

    grid: Grid
    contrast: Tensor
    deep: Tensor
    turns: list[np.ndarray]


@lru_cache(maxsize=1)  # every scan is compared with it
def _compared(template: Template) -> _Compared:
    image, grid = _at(template.image, template.grid, SPACING)
    centre, turns = LPS @ _centre(image, grid), []
    for vector in np.deg2rad(TURN) * np.vstack([np.eye(3), -np.eye(3)]):
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(vector).as_matrix()
        turn[:3, 3] = centre - turn[:3, :3] @ centre
        turns.append(turn)
    deep = ~grown((image <= BRAIN_FOREGROUND)[None, None], round(DEPTH / SPACING))[0, 0]
    return _Compared(grid, local_contrast(image, grid), deep, turns)


def in_template_space(image: Tensor, grid: Grid, template: Template) -> bool:
    """Whether an image `[1, D, H, W]` fits the template as it lies, so that it needs no affine."""
    return agreement(image, grid, template).reaches(IN_SPACE)


def check_alignment(
    image: Tensor, grid: Grid, template: Template, affine: np.ndarray, source: object = "image"
) -> Agreement:
    """See that an affine, found by `align` or the identity, is that of a brain.

    Raises:
        UserError: if it mirrors, scales or shears more than heads differ, or the image doesn't fit the template.
    """
    failed = f"{source}: its affine to {template.name} failed"
    if np.linalg.det(affine[:3, :3]) <= 0:
        raise UserError(f"{failed}: it mirrors left and right; check the orientation in the file's header")
    scales = np.linalg.svd(affine[:3, :3], compute_uv=False)
    if scales[2] < SCALES[0] or scales[0] > SCALES[1] or scales[0] > STRETCH * scales[2]:
        found = ", ".join(f"{s:.2f}" for s in scales)
        expected = f"{SCALES[0]:g}-{SCALES[1]:g}, at most {STRETCH:g} times another"
        raise UserError(f"{failed}: it scales by {found}, expected {expected}; is it a whole, skull-stripped brain?")
    here = agreement(image, grid, template, affine)
    if not here.reaches(ALIGNED):
        found = f"overlap {here.overlap:.2f} and correlation {here.correlation:.2f} with the template"
        expected = f"at least {ALIGNED[0]:g} and {ALIGNED[1]:g}"
        if here.lead < ALIGNED[2]:
            found, expected = f"{found}, {here.correlation - here.lead:.2f} if turned by {TURN:g} degrees", "less"
        question = "is it a skull-stripped T1w, oriented as its header says?"
        raise UserError(f"{failed}: {found}, expected {expected}; {question}")
    return here


def local_contrast(image: Tensor, grid: Grid) -> Tensor:
    """An image `[D, H, W]` by the mean of the tissue around each voxel; tissue `GREY` to 2, and what is dark 0.

    Tissue is what is brighter than `TISSUE` of that mean, so that it doesn't matter how much fluid a mask has left. It
    ends half-way down its edge, where a blurred edge lies as a sharp one does.
    """
    tissue = image > BRAIN_FOREGROUND
    factors = [SURROUNDINGS / s for s in grid.spacing]
    for _ in range(ROUNDS):
        inside = tissue.float()
        total, weight = antialias(torch.stack([image * inside, inside])[:, None], factors)[:, 0]
        mean = (total / weight.clamp(min=1e-3)).clamp(min=BRAIN_FOREGROUND)
        tissue = image > (TISSUE * mean).clamp(min=BRAIN_FOREGROUND)
    contrast = (image / mean).clamp(max=2)
    return ((contrast - DARK[0]) / (DARK[1] - DARK[0])).clamp(0, 1) * contrast.clamp(min=GREY)


class _Level:
    """Template and image at one spacing, for SimpleITK."""

    def __init__(self, image: Tensor, grid: Grid, template: Template, spacing: float, local: bool = False) -> None:
        fixed, moving = _at(template.image, template.grid, spacing), _at(image, grid, spacing)
        self.spacing = spacing
        self.centre, self.moving_centre = _centre(*fixed), _centre(*moving)
        volumes = [float((v > BRAIN_FOREGROUND).sum()) * g.voxel_volume for v, g in (fixed, moving)]
        self.size = float(np.clip((volumes[1] / volumes[0]) ** (1 / 3), 0.75, 1.2))
        near = grown((fixed[0] > BRAIN_FOREGROUND)[None, None], round(RIM / spacing))[0, 0]
        self.mask = _to_sitk(near.to(torch.uint8), fixed[1])
        self.fixed, self.moving = (_to_sitk(local_contrast(v, g) if local else v, g) for v, g in (fixed, moving))

    def start(self, pitch: float) -> sitk.Similarity3DTransform:
        """Centre on centre, the foreground's volume, and a pitch in degrees."""
        shift = (self.moving_centre - self.centre).tolist()
        return sitk.Similarity3DTransform(self.size, (1.0, 0.0, 0.0), np.deg2rad(pitch), shift, self.centre.tolist())

    def improve(self, transform: sitk.Transform, iterations: int) -> float:
        """Move a transform, in place, to where the negative squared correlation is least; returns that."""
        method = sitk.ImageRegistrationMethod()
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
            estimateLearningRate=method.EachIteration,  # else a step may be a millimetre, or a scale of 2
            maximumStepSizeInPhysicalUnits=self.spacing / 2,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        method.Execute(self.fixed, self.moving)
        return float(method.GetMetricValue())


def _at(image: Tensor, grid: Grid, spacing: float) -> tuple[Tensor, Grid]:
    """An image `[1, D, H, W]` on an isotropic grid over its box, `[d, h, w]`."""
    target = grid.at_spacing(spacing)
    return resample(image[None], grid.torch_affine, target.shape, target.torch_affine)[0, 0], target


def _centre(image: Tensor, grid: Grid) -> np.ndarray:
    """Centre of mass of `[D, H, W]`, LPS millimetres."""
    sums = [image.double().movedim(axis, 0).flatten(1).sum(dim=1) for axis in range(3)]
    index = [float(s @ torch.arange(len(s), dtype=torch.float64) / s.sum()) for s in sums]
    return LPS @ (grid.affine @ np.array([*index, 1.0]))[:3]


def _to_sitk(image: Tensor, grid: Grid) -> sitk.Image:
    """`[D, H, W]` as SimpleITK has it: its first axis is the last one in memory, its world LPS."""
    spacing = np.array(grid.spacing[::-1])
    out = sitk.GetImageFromArray(image.numpy())
    out.SetSpacing(spacing.tolist())
    out.SetOrigin((LPS @ grid.affine[:3, 3]).tolist())
    out.SetDirection((LPS @ grid.affine[:3, 2::-1] / spacing).ravel().tolist())
    return out
