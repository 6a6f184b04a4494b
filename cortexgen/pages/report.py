"""One self-contained HTML page: text, tables, figures and brains that turn, without anything from elsewhere."""

import hashlib
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from cortexgen.evaluation.table import Column, Table
from cortexgen.figures.brains import to_png
from cortexgen.figures.told import to_svg
from cortexgen.io import write_text
from cortexgen.pages.viewer import Viewer, embedded, script

QUALITY = 90  # of pictures, which take a fifth of what they would without loss
TEMPLATES = Environment(
    loader=PackageLoader("cortexgen.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


class Report:
    """A page built from top to bottom of blocks, each of which the template of its kind shows.

    Everything a caller gives is escaped; the same calls write the same bytes. Key figures stand on top whenever they
    are given; a table of contents follows them if there are more than four sections.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self.cards: list[tuple[str, str, str]] = []
        self.sections: list[str] = []
        self.blocks: list[dict[str, Any]] = []
        self.figures = 0
        self.script = ""

    def add(self, kind: str, **content: Any) -> None:
        """A block that `templates/kind.html` shows."""
        self.blocks.append({"kind": kind, **content})

    def key_figures(self, figures: Sequence[tuple[str, str, str]]) -> None:
        """Cards of (label, value, note)."""
        self.cards += figures

    def section(self, heading: str, text: str = "", about: str = "", **content: Any) -> None:
        """Begin a section with a text, or with the template `about`."""
        self.sections.append(heading)
        self.add("section", heading=heading, number=len(self.sections))
        self.text(text)
        if about:
            self.add(about, **content)

    def text(self, text: str) -> None:
        """Plain text; blank lines part paragraphs."""
        self.add("text", paragraphs=[part.strip() for part in text.split("\n\n") if part.strip()])

    def figure(self, figure: Figure, caption: str, alt: str | None = None, dpi: float = 150) -> None:
        """A figure with its number and caption; `alt`, the caption unless given, is for those who cannot see it."""
        self.figures += 1
        with Image.open(io.BytesIO(to_png(figure, dpi))) as picture:
            content = io.BytesIO()
            picture.convert("RGB").save(content, "WEBP", quality=QUALITY)
            size = {"webp": b64encode(content.getvalue()).decode(), "width": picture.width, "height": picture.height}
        self.add("figure", number=self.figures, caption=caption, alt=alt or caption, **size)

    def chart(self, figure: Figure, caption: str, alt: str | None = None) -> None:
        """A chart, as `figure`, whose marks say their values under a pointer."""
        self.figures += 1
        width, height = (round(100 * inches) for inches in figure.get_size_inches())
        words = {"number": self.figures, "caption": caption, "alt": alt or caption, "width": width, "height": height}
        self.add("chart", svg=to_svg(figure, f"figure-{self.figures}-"), **words)

    def viewer(self, viewer: Viewer, caption: str) -> None:
        """Brains that turn and scroll; where no script can run, a picture of them with the caption. Nothing of none."""
        if viewer.brains:
            self.script = script()
            self.figure(viewer.still(), caption, dpi=90)
            self.blocks[-1] |= {"kind": "viewer/viewer", "viewer": viewer, "data": embedded(viewer.data())}

    def table(
        self, rows: Sequence[Mapping[str, Any]], caption: str = "", formats: Mapping[str, str] | None = None
    ) -> None:
        """A table of rows, unless there are none; columns in order of appearance, missing values are n/a.

        Arguments:
            rows: a mapping of column to value each.
            formats: format specification of a column's numbers, as ".3f"; four significant digits otherwise.
        """
        names = dict.fromkeys(key for row in rows for key in row)
        if names:
            self.results(Table(rows, [Column(name, format=(formats or {}).get(name)) for name in names], caption))

    def results(self, table: Table) -> None:
        """A table with intervals, its best values in bold, and its notes below; the first column heads each row.

        A caption that the section's heading says already is for screen readers alone.
        """
        self.add("table", table=table, heading=self.sections[-1] if self.sections else "")

    def write(self, path: Path) -> None:
        """Write the page atomically; what UTF-8 doesn't have, as in some names of files, becomes a question mark."""
        write_text(Path(path), self.render().encode("utf-8", "replace").decode("utf-8"))

    def render(self) -> str:
        """The page as text."""
        allowed = f"'sha256-{b64encode(hashlib.sha256(self.script.encode()).digest()).decode()}'" if self.script else ""
        return TEMPLATES.get_template("page.html").render(vars(self) | {"allowed": allowed})


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
