"""Dark figures with panels in rows and columns, all drawn at one scale."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cortexgen.figures.planes import BACKGROUND, FAINT, INK, PLANES, Array, Plane, PlaneName, View, letters

EDGE, GAP = 0.1, 0.08  # inches at the sides, and between columns


class Sheet:
    """A dark figure with panels in rows and columns, all drawn at one scale.

    Arguments:
        columns: widths of the columns in millimetres of the volume.
        rows: heights of the rows in millimetres.
        above: inches left free above each row, for text.
        width: of the figure in inches.
        bottom: inches kept free below.
    """

    def __init__(
        self, columns: Sequence[float], rows: Sequence[float], above: Sequence[float], width: float, bottom: float
    ) -> None:
        scale = (width - EDGE - EDGE - GAP * (len(columns) - 1)) / sum(columns)
        self.scale, self.width = scale, width
        self.height = scale * sum(rows) + sum(above) + bottom
        self.widths, self.heights = [scale * c for c in columns], [scale * r for r in rows]
        self.lefts = [EDGE + sum(self.widths[:k]) + GAP * k for k in range(len(columns))]
        self.tops = [self.height - sum(self.heights[:k]) - sum(above[: k + 1]) for k in range(len(rows))]
        self.figure = Figure(figsize=(width, self.height), facecolor=BACKGROUND)
        FigureCanvasAgg(self.figure)

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box, facecolor=BACKGROUND)

    def panel(self, row: int, column: int, view: View, plane: Plane, image: Array | None, **style: Any) -> Axes:
        """A slice of a volume, or the room for one, in the middle of a cell."""
        width, height = (self.scale * side for side in view.size(plane))
        left = self.lefts[column] + (self.widths[column] - width) / 2
        axes = self._axes(left, self.tops[row] - (self.heights[row] + height) / 2, width, height)
        axes.set_axis_off()
        view.draw(axes, plane, None if image is None else view.cut(image, plane), **style)
        return axes

    def text(self, x: float, y: float, text: str, size: float = 9, **style: Any) -> None:
        """Write at a place in inches from the lower left corner."""
        style = {"color": INK, "ha": "center", "va": "center", **style}
        self.figure.text(x / self.width, y / self.height, text, fontsize=size, **style)

    def heading(self, row: int, column: int, text: str, size: float = 10, **style: Any) -> None:
        """Write above a cell."""
        x = self.lefts[column] + self.widths[column] / 2
        self.text(x, self.tops[row] + 0.05, text, size, va="bottom", **style)

    def title(self, text: str | None) -> None:
        """Write at the top, from the left."""
        if text:
            self.text(self.lefts[0], self.height - 0.12, text, 12, ha="left", va="top", fontweight="bold")

    def places(self, view: View, planes: Sequence[PlaneName]) -> None:
        """Write at the bottom where the slices lie."""
        text = " · ".join(f"{name} {view.place(PLANES[name])}" for name in planes)
        self.text(self.lefts[0], 0.13, text, 8, ha="left", color=FAINT)

    def colour_bar(self, column: int, style: Mapping[str, Any], label: str, y: float, extend: str) -> None:
        """A horizontal colour bar of what `style` draws, below a column, `y` inches above the lower edge."""
        margin = 0.12 * self.widths[column]
        axes = self._axes(self.lefts[column] + margin, y, self.widths[column] - 2 * margin, 0.09)
        scale = ScalarMappable(Normalize(style["vmin"], style["vmax"]), style["cmap"])
        bar = self.figure.colorbar(scale, cax=axes, orientation="horizontal", extend=extend)
        bar.outline.set_visible(False)
        axes.set_facecolor("#6a6a6a")
        bar.ax.tick_params(colors=FAINT, labelsize=8, length=2, width=0.6, pad=2)
        bar.set_label(label, color=INK, fontsize=8.5, labelpad=2)


def three_planes(
    view: View, image: Array | None, shades: dict[str, float], title: str | None, bottom: float = 0.1
) -> tuple[Sheet, list[tuple[Axes, Plane]]]:
    """A sheet with one row, an image in the three planes, each under its position; and its panels."""
    sizes = [view.size(plane) for plane in PLANES.values()]
    sheet = Sheet([w for w, _ in sizes], [max(h for _, h in sizes)], [0.62 if title else 0.34], 10, bottom=bottom)
    sheet.title(title)
    panels = []
    for column, (name, plane) in enumerate(PLANES.items()):
        sheet.heading(0, column, f"{name.capitalize()}, {view.place(plane)}", 9, color=FAINT)
        panels.append((sheet.panel(0, column, view, plane, image, **shades), plane))
        letters(panels[-1][0], plane)
    return sheet, panels


def plane_rows(
    view: View, items: Sequence[tuple[str, Array, dict[str, Any]]], title: str | None, width: float
) -> tuple[Sheet, list[tuple[Plane, list[Axes]]]]:
    """A sheet with a row a plane and a column an image, under its name; and the panels of each row.

    Arguments:
        items: name, image `[D, H, W]` and style of each.
        width: of the figure in inches.
    """
    sizes = [view.size(plane) for plane in PLANES.values()]
    widths, heights = [max(w for w, _ in sizes)] * len(items), [h for _, h in sizes]
    sheet = Sheet(widths, heights, [0.62 if title else 0.32, 0.06, 0.06], width, bottom=0.6)
    sheet.title(title)
    for column, (name, _, _) in enumerate(items):
        sheet.heading(0, column, name)
    rows = []
    for row, plane in enumerate(PLANES.values()):
        panels = [sheet.panel(row, k, view, plane, image, **style) for k, (_, image, style) in enumerate(items)]
        letters(panels[0], plane)
        rows.append((plane, panels))
    return sheet, rows
