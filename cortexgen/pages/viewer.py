"""Brains of a page that turn and scroll: volumes small enough to lie in it, and the program that shows them."""

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cortexgen.figures.brains import cohort
from cortexgen.figures.colours import GROWTH, class_colour
from cortexgen.figures.planes import Array, foreground, window
from cortexgen.io import Grid
from cortexgen.io.nifti import nifti, to_file
from cortexgen.spatial import log_jacobian, resample, resample_field, resample_labels

MOST = 12  # brains in a page
SPACING = 2.0  # millimetres a voxel, at the least
MARGIN = 2  # voxels around a brain
LARGEST = float(np.log(2))  # of |log |J||, where colours are full
STEPS = 127  # of it, each way
TEMPLATES = files("cortexgen.pages") / "templates" / "viewer"


@cache
def niivue() -> str:
    """NiiVue, which nilearn comes with, and its licence's words."""
    program = (files("nilearn") / "_assets" / "js" / "niivue.umd.js").read_text("utf-8")
    return f"/*!\n{(TEMPLATES / 'niivue-licence.txt').read_text('utf-8')}*/\n{program}"


class Shown(NamedTuple):
    """A brain of a page.

    Attributes:
        group, name, caption: words about it.
        grid: of all that follows.
        image: `[D, H, W]`, float32.
        layers: whole numbers from 0 to 255 by what they are, `[D, H, W]`, with slope and intercept of their values.
            Those of growth are roots of the share of `LARGEST`, which NiiVue squares to get an opacity.
    """

    group: str
    name: str
    caption: str
    grid: Grid
    image: Tensor
    layers: dict[str, tuple[Array, float, float]]


class Viewer:
    """The brains that a page shows, at 2 mm where they are finer; `MOST` is as many as a page has room for.

    Arguments:
        classes: names of the labels by number; the numbers themselves unless given.
    """

    def __init__(self, classes: Mapping[int, str] | None = None) -> None:
        self.classes = classes or {}
        self.brains: list[Shown] = []
        self.numbers = [0]
        self.top = 0.0
        self._ends: list[Array] = []

    def add(
        self,
        group: str,
        name: str,
        image: Tensor,
        grid: Grid,
        labels: Tensor | None = None,
        field: tuple[Tensor, Grid] | None = None,
        caption: str = "",
    ) -> None:
        """Add a brain.

        Arguments:
            group: heads its part of the list of brains.
            image: `[1, D, H, W]`, values from 0 on.
            labels: `[1, D, H, W]`, int64.
            field: that made it of the template, a pull-back `[3, d, h, w]` in voxels of its own grid; shown is log |J|
                of the way from the template, less its median in the brain (the affine's).
            caption: what is known of it.
        """
        if min(grid.spacing) < 0.99 * SPACING:
            fine, grid = grid.torch_affine, grid.at_spacing(SPACING)
            labels = None if labels is None else resample_labels(labels, fine, grid.shape, grid.torch_affine)
            image = resample(image[None], fine, grid.shape, grid.torch_affine)[0]
        shades = image[0].numpy()
        inside = foreground(shades)
        top = max(float(np.quantile(shades, 0.999)), 1e-6)
        self.top = max(self.top, window(shades)["vmax"])
        layers = {"image": (_bytes(255 * np.clip(shades / top, 0, 1)), top / 255, 0.0)}
        if labels is not None:
            inside = inside | (labels[0].numpy() > 0)
            layers["labels"] = (_bytes(self._counted(labels[0].numpy())), 1.0, 0.0)
        if field is not None and inside.any():
            growth = _growth(*field, grid)
            share = np.clip((growth - np.median(growth[inside])) / LARGEST, -1, 1) * inside
            layers["growth"] = (_bytes(STEPS * (1 + np.sign(share) * np.abs(share) ** 0.5)), 1 / STEPS, -1.0)
        self.brains.append(Shown(group, name, caption, grid, image[0], layers))
        places = np.argwhere(inside) if inside.any() else np.argwhere(np.ones_like(inside))
        self._ends.append(_corners(places.min(axis=0) - MARGIN, places.max(axis=0) + MARGIN, grid.affine))

    def _counted(self, labels: Array) -> Array:
        """Labels as places among the numbers that occur."""
        present, places = np.unique(labels.astype(np.int64), return_inverse=True)
        self.numbers += [k for k in present.tolist() if k not in self.numbers]
        return np.array([self.numbers.index(k) for k in present.tolist()])[places.reshape(labels.shape)]

    @property
    def groups(self) -> dict[str, list[tuple[int, str]]]:
        """Places and names of the brains of each group."""
        groups: dict[str, list[tuple[int, str]]] = {}
        for k, brain in enumerate(self.brains):
            groups.setdefault(brain.group, []).append((k, brain.name))
        return groups

    @property
    def layers(self) -> dict[str, str]:
        """What some brain has to be laid over its image, and what to call it."""
        names = {"labels": "Labels", "growth": "Growth, log |J|"}
        return {key: name for key, name in names.items() if any(key in brain.layers for brain in self.brains)}

    def data(self) -> dict[str, Any]:
        """What the program reads: every brain cropped to the box that holds all of them, so that all have one scale."""
        ends = np.concatenate(self._ends, axis=1)
        low, high = np.floor(ends.min(axis=1)), np.ceil(ends.max(axis=1))
        names = ["", *(str(self.classes.get(k, k)) for k in self.numbers[1:])]
        labels = _colours([class_colour(k) for k in self.numbers], [0.0] + [1.0] * (len(names) - 1))
        shrunk, grown = (_colours([GROWTH(end)[:3]] * 2, [0.0, 1.0]) | {"I": [0, 255]} for end in (0.0, 1.0))
        return {
            "brains": [_packed(brain, low, high) for brain in self.brains],
            "classes": labels | {"I": [*range(len(names))], "labels": names},
            "growth": {"shrunk": shrunk, "grown": grown, "largest": LARGEST},
            "top": self.top,
            "ends": np.stack([low, high], axis=1).tolist(),
        }

    def still(self) -> Figure:
        """A picture of the brains, for where no program runs."""
        grid = self.brains[0].grid
        rows: dict[str, list[Tensor]] = {}
        for brain in self.brains:
            there = resample(brain.image[None, None], brain.grid.torch_affine, grid.shape, grid.torch_affine)
            rows.setdefault(brain.group.replace("$", r"\$"), []).append(there[0, 0])
        return cohort(rows, grid, "coronal")


def script() -> str:
    """The program of a page with brains, NiiVue first."""
    return niivue() + (TEMPLATES / "viewer.js").read_text("utf-8")


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that no element's end can occur in."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _bytes(values: Array) -> Array:
    return np.rint(values).astype(np.uint8)


def _corners(low: Array, high: Array, affine: Array) -> Array:
    """The corners of a box, `[3, 8]`, moved by an affine."""
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
    return affine[:3] @ np.vstack([corners, np.ones(8)])


def _packed(brain: Shown, low: Array, high: Array) -> dict[str, str]:
    """Words, and what lies within a box in millimetres as compressed NIfTI files in base64; the same for the same."""
    places = _corners(low, high, np.linalg.inv(brain.grid.affine))
    last = np.array(brain.grid.shape) - 1
    start, end = (np.clip(edge, 0, last).astype(int).tolist() for edge in (places.min(axis=1), places.max(axis=1)))
    part, grid = tuple(slice(a, b + 1) for a, b in zip(start, end, strict=True)), brain.grid.box(start, end)
    found = {"name": brain.name, "caption": brain.caption}
    for key, (values, slope, intercept) in brain.layers.items():
        image = nifti(*to_file(values[part], grid))
        image.header.set_slope_inter(slope, intercept)
        found[key] = b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode()
    return found


def _colours(colours: Any, opacities: Any) -> dict[str, list[int]]:
    """As NiiVue has them: channels of whole numbers to 255."""
    table = np.rint(255 * np.column_stack([np.array(colours), np.array(opacities)])).astype(int)
    return {channel: column.tolist() for channel, column in zip("RGBA", table.T, strict=True)}


def _growth(displacement: Tensor, own: Grid, grid: Grid) -> Array:
    """log |J| of the way from the moving image, `[D, H, W]` on a grid."""
    field = resample_field(displacement[None], own.torch_affine, grid.shape, grid.torch_affine)
    return -log_jacobian(field)[0, 0].numpy()
