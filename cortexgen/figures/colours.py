"""Colours of label maps, fields and charts."""

import colorsys

import numpy as np
from matplotlib.colors import ListedColormap

from cortexgen.figures.planes import Array

REAL, SYNTHETIC = "#3b6ea8", "#d9762b"
GROUPS = (REAL, SYNTHETIC, "#3f8f5f", "#8a5aa8", "#b8445a", "#6b6f2a")

# FreeSurfer's, for the 18 classes of the default template, so that readers find their own colours.
_HEX = (
    "000000 f5f5f5 cd3e4e 781286 c43afa dcf8a4 e69422 00760e 7abadc "
    "ec0db0 0c30ff ccb68e 2acca4 779fb0 dcd814 67ffff ffa500 a52a2a"
)
_CLASSES = np.frombuffer(bytes.fromhex(_HEX), np.uint8).reshape(-1, 3) / 255

# Blue through transparent to red: zero lets the anatomy through, and strength goes with size.
_SCALE = np.linspace(-1, 1, 255)
_HUES = np.where(_SCALE[:, None] < 0, [0.25, 0.62, 1.0], [1.0, 0.33, 0.16])
GROWTH = ListedColormap(np.column_stack([_HUES, np.abs(_SCALE) ** 0.7]), name="growth")


def class_colour(k: int) -> tuple[float, float, float]:
    """RGB in [0, 1] of a class; classes beyond the default template's 18 go round the colour wheel."""
    if k < len(_CLASSES):
        r, g, b = _CLASSES[k].tolist()
        return r, g, b
    return colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.65, 0.95)


def paint(labels: Array, alpha: float) -> Array:
    """A label slice as RGBA `[..., 4]`, class 0 transparent."""
    present, places = np.unique(labels, return_inverse=True)
    table = np.array([(*class_colour(int(k)), alpha if k else 0.0) for k in present])
    return table[places.reshape(labels.shape)]
