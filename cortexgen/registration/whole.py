"""A slab's field put back into the whole image, for display."""

from pathlib import Path

import numpy as np
from torch import Tensor

from cortexgen.data.cohort import Scan
from cortexgen.io import STEP, Grid, write_field, write_json, write_volume
from cortexgen.io.bids import STRIPPED, derivative, sidecar, transform
from cortexgen.registration.propagation import Propagation
from cortexgen.spatial import folded
from cortexgen.spatial.embed import embed

FADE = 16.0  # millimetres beyond the slab over which its field falls to zero


def continued(grid: Grid, around: Grid) -> Grid:
    """A grid with more of its voxels on each side, so that it covers `around`."""
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in around.shape], indexing="ij")).reshape(3, -1)
    places = (np.linalg.inv(grid.affine) @ around.affine @ np.vstack([corners, np.ones(8)]))[:3]
    low = np.minimum(0, np.floor(places.min(axis=1) + 1e-3)).astype(int)
    high = np.maximum(np.array(grid.shape) - 1, np.ceil(places.max(axis=1) - 1e-3)).astype(int)
    return grid.box(low.tolist(), high.tolist())


def in_whole(field: Tensor, grid: Grid, whole: Grid) -> Tensor:
    """A slab's field `[B, 3, d, h, w]` on `whole`, a grid of the same voxels; it fades out beyond the slab."""
    low = np.rint(np.linalg.inv(whole.affine) @ grid.affine[:, 3])[:3].astype(int)
    return embed(field, low.tolist(), whole.shape, round(FADE / max(grid.spacing)))


def write_whole(root: Path, scan: Scan, velocity: Tensor, grid: Grid, maps: Propagation) -> None:
    """Write a slab's registration on the whole grid: the field, the warped moving image, and a picture of both.

    Arguments:
        velocity: `[1, 3, d, h, w]`, on `grid`.
        maps: between the whole images, for velocities on a grid continued from `grid`.
    """
    from cortexgen.figures import deformed_grid, write_png  # matplotlib takes a second

    field = maps.forward(in_whole(velocity, grid, maps.velocity_grid))
    warped, image = maps.warp(field), derivative(root, scan.name, "T1w", desc="whole")
    xfm = transform(root, scan.name, maps.moving.name, maps.fixed.name)
    xfm = xfm.with_name(xfm.name.replace("_xfm", "_desc-whole_xfm"))
    about = {"SpatialReference": scan.image.name, "Sources": [scan.image.name], "FoldedVoxels": int(folded(field))}
    write_json(sidecar(xfm), about)
    write_json(sidecar(image), STRIPPED | about)
    write_field(xfm, field[0], maps.fixed.grid, STEP)
    write_volume(image, warped, maps.fixed.grid)
    figure = deformed_grid(field[0], maps.fixed.grid, warped[0], title=scan.name)
    write_png(image.with_name(image.name.replace(".nii.gz", ".png")), figure)
