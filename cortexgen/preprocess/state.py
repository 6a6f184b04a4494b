"""What the steps of preprocessing hand on: one scan, and what was found out about it."""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from cortexgen.atlas.intensity import constant_background
from cortexgen.atlas.template import Template
from cortexgen.io import Grid


@dataclass
class Subject:
    """A scan on its way to template space.

    Attributes:
        image: `[1, D, H, W]` float32; 0 outside of the mask as soon as there is one.
        grid: of image and mask.
        template: where it goes to.
        source: what to name in errors.
        mask: the brain, `[1, D, H, W]` bool.
        affine: 4x4, template point to image point, RAS millimetres; None before it is known.
        native: mask and grid as they were before `Resample`.
        measures: numbers and words for the table.
        flags: what somebody should look at, a sentence each.
    """

    image: Tensor
    grid: Grid
    template: Template
    source: str
    mask: Tensor | None = None
    affine: np.ndarray | None = None
    native: tuple[Tensor, Grid] | None = None
    measures: dict[str, float | str] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    @property
    def inside(self) -> Tensor:
        """The mask; what is no background where there is none yet."""
        return foreground(self.image) if self.mask is None else self.mask

    @property
    def resampled(self) -> bool:
        """Whether it lies in the template's space."""
        return self.native is not None

    def keep(self, mask: Tensor) -> None:
        """Make this the brain, and everything else 0."""
        self.mask, self.image = mask, self.image.clamp(min=0) * mask


def foreground(image: Tensor) -> Tensor:
    """What is brighter than a constant background, or than Otsu's threshold; the shape of the image, bool."""
    value = constant_background(image)
    return image > (otsu(image) if value is None else value)


def otsu(image: Tensor, bins: int = 256) -> float:
    """The threshold that divides an image's values into the two most distant classes (Otsu, 1979)."""
    values = image.flatten().double().numpy()
    counts, edges = np.histogram(values, bins, (values.min(), np.quantile(values[::7], 0.999)))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (means[0] - means[1]) ** 2)])
