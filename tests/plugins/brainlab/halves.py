"""A labeller: a brain's darker and brighter half."""

from pathlib import Path

from torch import Tensor

from cortexgen.contracts import Labelled, Labeller
from cortexgen.io import Grid


class Halves(Labeller):
    """Divides at the median."""

    description, key = "halves by intensity", "halves 1"
    classes = {1: "Dark", 2: "Bright"}  # noqa: RUF012

    def label(self, image: Tensor, grid: Grid, source: Path, given: Tensor | None = None) -> Labelled:
        inside = image > 0
        return Labelled(inside.long() + (inside & (image > image[inside].median())))
