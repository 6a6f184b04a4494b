"""Colours of label maps, fields and charts."""

import numpy as np
from matplotlib.colors import ListedColormap

from cortexgen.atlas.colours import class_rgb
from cortexgen.figures.planes import Array

REAL, SYNTHETIC = "#3b6ea8", "#d9762b"
GROUPS = (REAL, SYNTHETIC, "#3f8f5f", "#8a5aa8", "#b8445a", "#6b6f2a")

# Blue through transparent to red: zero lets the anatomy through, and strength goes with size.
_SCALE = np.linspace(-1, 1, 255)
_HUES = np.where(_SCALE[:, None] < 0, [0.25, 0.62, 1.0], [1.0, 0.33, 0.16])
GROWTH = ListedColormap(np.column_stack([_HUES, np.abs(_SCALE) ** 0.7]), name="growth")


def class_colour(k: int) -> tuple[float, float, float]:
    """RGB in [0, 1] of a class."""
    red, green, blue = class_rgb(k)
    return red / 255, green / 255, blue / 255


def paint(labels: Array, alpha: float) -> Array:
    """A label slice as RGBA `[..., 4]`, class 0 transparent."""
    present, places = np.unique(labels, return_inverse=True)
    table = np.array([(*class_colour(int(k)), alpha if k else 0.0) for k in present])
    return table[places.reshape(labels.shape)]
