"""Thickness, area and folding of the cerebral cortex, from a label map."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter, map_coordinates
from scipy.spatial import ConvexHull, cKDTree
from torch import Tensor

from cortexgen.errors import UserError

CORTEX, WHITE = "Cerebral-Cortex", "Cerebral-White-Matter"
OUTSIDE = ("Unknown", "Cerebellum-White-Matter", "Cerebellum-Cortex", "4th-Ventricle", "Brain-Stem", "CSF")
SIGMA = 0.7  # of the Gaussian that takes the staircase off a mask, in voxels; sheets of one voxel survive it
REACH = 10.0  # of rays through the cortex, in mm
RAYS = 4_000


class Cortex(NamedTuple):
    """Measures of both hemispheres together.

    Attributes:
        thickness: of the ribbon, mean over the white surface, in mm.
        white_area, pial_area: of the surfaces between white and grey matter, and around grey matter, where they bound
            cortex (not the medial wall), in square mm.
        hull_area: of the convex hull of the pial surface, in square mm.
        folding: `pial_area / hull_area`. Sulci whose banks touch in the label map add nothing to it.
        white_folding: `white_area / hull_area`, which closed sulci leave alone.
    """

    thickness: float
    white_area: float
    pial_area: float
    hull_area: float
    folding: float
    white_folding: float


class _Surface(NamedTuple):
    """Vertices `[V, 3]` in mm; centres `[F, 3]` in mm and areas `[F]` of the triangles."""

    vertices: np.ndarray
    centres: np.ndarray
    areas: np.ndarray


def _surface(mask: np.ndarray, spacing: np.ndarray) -> _Surface:
    from skimage.measure import marching_cubes  # slow to import

    vertices, faces, _, _ = marching_cubes(mask, 0.5, spacing=tuple(spacing))
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return _Surface(vertices, (a + b + c) / 3, np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)


def _masks(labels: Tensor, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cortex, and what lies within it, in the box that holds them and a border of 4 voxels."""
    names = [name.removeprefix("Left-").removeprefix("Right-") for name in classes]
    missing = [name for name in (CORTEX, WHITE) if name not in names]
    if missing:
        raise UserError(f"cortical measures need the class {missing[0]}, found {', '.join(classes)}")
    array = labels.reshape(labels.shape[-3:]).cpu().numpy()
    if array.min() < 0 or array.max() >= len(names):
        raise UserError(f"label {array.min() if array.min() < 0 else array.max()} has no name in the label table")
    cortex = np.array([name == CORTEX for name in names])[array]
    within = np.array([name not in (CORTEX, *OUTSIDE) for name in names])[array]
    if not cortex.any() or not within.any():
        raise UserError(f"cortical measures: a label map without {CORTEX if not cortex.any() else WHITE}")
    (box,) = find_objects((cortex | within).astype(np.int8))
    return np.pad(cortex[box], 4), np.pad(within[box], 4)


def _sample(image: np.ndarray, points: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Values at points `[*, 3]` in mm."""
    return map_coordinates(image, np.moveaxis(points / spacing, -1, 0), order=1, mode="nearest")


def _thickness(white: _Surface, kept: np.ndarray, within: np.ndarray, whole: np.ndarray, spacing: np.ndarray) -> float:
    """Mean over rays from the white surface outwards of the greatest distance to it that they reach within cortex."""
    centres, areas = white.centres[kept], white.areas[kept]
    every = -(-len(centres) // RAYS)
    centres, areas = centres[::every], areas[::every]
    normals = -np.stack([_sample(g, centres, spacing) for g in np.gradient(within, *spacing)], axis=-1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    step, most = spacing.min() / 4, int(REACH * 4 / spacing.min())
    ends, alive = np.zeros(len(centres), dtype=int), np.arange(len(centres))
    for k in range(1, most + 1):
        points = centres[alive] + k * step * normals[alive]
        alive = alive[(_sample(whole, points, spacing) > 0.5) & (_sample(within, points, spacing) < 0.5)]
        ends[alive] = k
        if not len(alive):
            break
    tree = cKDTree(np.concatenate([white.vertices, white.centres]), leafsize=32, balanced_tree=False)
    depth, rising = _greatest(tree, centres, step * normals, ends)
    depth += np.where(rising, 1 / 2, 1 / 4) * step  # on average a ray ends, or its peak lies, so far from a sample
    return float(np.average(depth, weights=areas))


def _greatest(tree: cKDTree, start: np.ndarray, step: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The greatest distance to a surface at the points `start + k step`, k from 1 to `ends`, and whether the last has
    it; 0 without points. `start` lies on the surface.

    A distance changes by no more than one goes, so that its values at every fourth point tell where between them no
    greater one can be.
    """
    size = np.linalg.norm(step, axis=1)[:, None]
    k = np.arange(ends.max(initial=0) + 1)
    inside, last = k <= ends[:, None], k == ends[:, None]
    known, upper = np.full(inside.shape, -1.0), np.full(inside.shape, np.inf)  # what was asked for; no greater is any
    known[:, 0] = upper[:, 0] = 0

    def ask(chosen: np.ndarray) -> None:
        ray, place = np.nonzero(chosen)
        known[chosen] = upper[chosen] = tree.query(start[ray] + place[:, None] * step[ray])[0]

    ask(inside & last & (k > 0))
    for stride in (4, 2, 1):
        new = inside & (k % stride == 0) & np.isinf(upper)
        bound = np.full(inside.shape, np.inf)
        if stride < 4:
            bound[:, stride:] = upper[:, :-stride]
            bound[:, :-stride] = np.minimum(bound[:, :-stride], upper[:, stride:])
            bound += stride * size
        upper[new] = bound[new]
        ask(new & (bound > known.max(axis=1)[:, None]))
    ray = np.arange(len(ends))
    at_last = known[ray, ends].copy()
    known[ray, ends] = 0
    before = known.max(axis=1)
    return np.maximum(at_last, before), at_last > before


def cortical_measures(labels: Tensor, classes: Sequence[str], spacing: Sequence[float]) -> Cortex:
    """Thickness, area and folding of the cortex in a label map with a class for it and one for white matter.

    Surfaces are marching cubes on smoothed masks: the pial one around cortex and all it encloses (white matter, deep
    nuclei, lateral and third ventricles), the white one around the latter. Thickness: from the white surface outwards
    along its normal, the greatest distance to that surface before the ray leaves the cortex; in a sulcus whose banks
    touch this is half of the distance between them (Dahnke et al., NeuroImage 2013, follow the same idea).

    Voxels decide what can be seen: compare maps of one voxel size and one origin only.

    Arguments:
        labels: `[1, D, H, W]`, integers.
        classes: names by index; "Left-" and "Right-" in front of a name don't matter.
        spacing: of the voxels along D, H, W in mm.

    Raises:
        UserError: if the table or the map has no cortex or no white matter, or a label no name.
    """
    cortex, within = _masks(labels, classes)
    size = np.asarray(spacing, dtype=np.float64)
    grey, inner = (gaussian_filter(mask.astype(np.float32), SIGMA) for mask in (cortex, within))
    whole = grey + inner
    white, pial = _surface(inner, size), _surface(whole, size)
    beside, below = (_sample(grey, surface.centres, size) for surface in (white, pial))
    white_kept = beside > (1 - _sample(inner, white.centres, size)) / 2
    pial_kept = below > _sample(inner, pial.centres, size)
    white_area, pial_area = float(white.areas[white_kept].sum()), float(pial.areas[pial_kept].sum())
    hull = float(ConvexHull(pial.vertices).area)
    thickness = _thickness(white, white_kept, inner, whole, size)
    return Cortex(thickness, white_area, pial_area, hull, pial_area / hull, white_area / hull)
