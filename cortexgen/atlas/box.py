"""The part of a template that holds its brain."""

import torch

from cortexgen.atlas.template import Template
from cortexgen.io import Grid


def brain_box(template: Template, margin: float = 8.0) -> Grid:
    """The part of a template's grid that holds its brain and `margin` millimetres around it.

    Sides are odd where the grid's are, so that nested coarse grids end where it ends; a symmetric grid stays symmetric.
    """
    low, high = [], []
    for axis, (n, spacing) in enumerate(zip(template.grid.shape, template.grid.spacing, strict=True)):
        inside = torch.nonzero(template.mask.movedim(1 + axis, 0).flatten(1).any(dim=1)).flatten()
        reach = int(margin / spacing) + 1
        a, b = max(0, int(inside.min()) - reach), min(n - 1, int(inside.max()) + reach)
        if axis == 2 and template.grid.is_symmetric():
            a, b = min(a, n - 1 - b), max(b, n - 1 - a)
        elif (b - a) % 2:
            a, b = (a - 1, b) if a > 0 else (a, min(b + 1, n - 1))
        low.append(a)
        high.append(b)
    return template.grid.box(low, high)
