"""Deformations of volumes, in PyTorch alone.

A displacement or velocity is `[B, 3, D, H, W]`, float32, in voxels of its own grid, channels in axis order
(D, H, W), read as a pull-back: `warped(p) = moving(p + u(p))`.
"""

from cortexgen.spatial.compose import compose
from cortexgen.spatial.embed import embed
from cortexgen.spatial.integrate import integrate
from cortexgen.spatial.invert import invert
from cortexgen.spatial.jacobian import (
    folded,
    folded_cubes,
    jacobian_determinant,
    log_jacobian,
    stencil_determinants,
)
from cortexgen.spatial.labels import label_shares, present_labels, resample_labels
from cortexgen.spatial.resample import (
    affine_displacement,
    antialias,
    coarse_shape,
    from_coarse,
    positions_in,
    resample,
    resample_field,
    turned,
)
from cortexgen.spatial.unfold import fold_places, smoothed_near, unfold
from cortexgen.spatial.warp import identity, mirrored, sample, warp, warp_labels
from cortexgen.spatial.window import grown, window_sums

__all__ = [
    "affine_displacement",
    "antialias",
    "coarse_shape",
    "compose",
    "embed",
    "fold_places",
    "folded",
    "folded_cubes",
    "from_coarse",
    "grown",
    "identity",
    "integrate",
    "invert",
    "jacobian_determinant",
    "label_shares",
    "log_jacobian",
    "mirrored",
    "positions_in",
    "present_labels",
    "resample",
    "resample_field",
    "resample_labels",
    "sample",
    "smoothed_near",
    "stencil_determinants",
    "turned",
    "unfold",
    "warp",
    "warp_labels",
    "window_sums",
]
