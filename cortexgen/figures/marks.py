"""What marks of a chart mean, kept with them until the chart is written."""

import json

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from cortexgen.figures.planes import Array

MARK = "told:"
MOST = 12  # places of a curve that tell


def mark(artist: Artist, *texts: str) -> None:
    """Have an artist say a text, or each of its points one of its own, in the chart that `to_svg` writes."""
    artist.set_gid(MARK + json.dumps([text.replace(r"\$", "$") for text in texts]))


def mark_curve(axes: Axes, at: Array, values: Array, label: str) -> None:
    """Have a curve say its values, at places evenly spaced along it."""
    kept = np.flatnonzero(np.isfinite(values))
    kept = kept[np.linspace(0, len(kept) - 1, min(MOST, len(kept))).round().astype(int)] if len(kept) else kept
    if len(kept):
        points = axes.scatter(at[kept], values[kept], s=20, color="black", alpha=0, lw=0, zorder=4)
        words = f"{label}: " if label else ""
        mark(points, *(f"{words}{y:.4g} at {x:.4g}" for x, y in zip(at[kept], values[kept], strict=True)))


def spread(values: Array, label: str) -> str:
    """Median, quartiles and number of values, in words."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return f"{label}: median {middle:.4g}, quartiles {low:.4g} to {high:.4g}, n = {len(values)}"
