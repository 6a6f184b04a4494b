"""Colours of label maps, fields and charts."""

import colorsys

import numpy as np
from matplotlib.colors import ListedColormap

from cortexgen.figures.planes import Array

REAL, SYNTHETIC = "#3b6ea8", "#d9762b"
GROUPS = (REAL, SYNTHETIC, "#3f8f5f", "#8a5aa8", "#b8445a", "#6b6f2a")

# FreeSurfer's, for the 18 classes of the default template, so that readers find their own colours.
_CLASSES = (
    (0, 0, 0),
    (245, 245, 245),
    (205, 62, 78),
    (120, 18, 134),
    (196, 58, 250),
    (220, 248, 164),
    (230, 148, 34),
    (0, 118, 14),
    (122, 186, 220),
    (236, 13, 176),
    (12, 48, 255),
    (204, 182, 142),
    (42, 204, 164),
    (119, 159, 176),
    (220, 216, 20),
    (103, 255, 255),
    (255, 165, 0),
    (165, 42, 42),
)


def class_colour(k: int) -> tuple[float, float, float]:
    """RGB in [0, 1] of a class; classes beyond the default template's 18 go round the colour wheel."""
    if k < len(_CLASSES):
        r, g, b = _CLASSES[k]
        return r / 255, g / 255, b / 255
    return colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.65, 0.95)


def paint(labels: Array, alpha: float) -> Array:
    """A label slice as RGBA `[..., 4]`, class 0 transparent."""
    present, places = np.unique(labels, return_inverse=True)
    table = np.array([(*class_colour(int(k)), alpha if k else 0.0) for k in present])
    return table[places.reshape(labels.shape)]


def _growth() -> ListedColormap:
    """Blue through transparent to red: zero lets the anatomy through, and strength goes with size."""
    x = np.linspace(-1, 1, 255)
    low, high = np.array([0.25, 0.62, 1.0]), np.array([1.0, 0.33, 0.16])
    colours = np.where(x[:, None] < 0, low, high)
    return ListedColormap(np.column_stack([colours, np.abs(x) ** 0.7]), name="growth")


GROWTH = _growth()
