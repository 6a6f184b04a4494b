"""What a scanner and its sequence do to a brain's picture, in a few numbers; and which of them go together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io.participants import spelt
from cortexgen.metrics.cortex import CORTEX, WHITE

STYLE = ("white", "contrast", "fluid", "noise", "bias")
CORE = 20  # voxels of white matter away from its border that a style is measured in, at least
REACH = 10  # mm, of the means whose deviation is the bias
NEAR = {"age": 5.0}  # deviation of the Gaussian that says whose age is near, in years
JITTER = 0.25  # of a style's deviation among the people, about the one that was drawn


def _mean(image: Tensor, mask: Tensor, size: int) -> Tensor:
    """Of an image's masked voxels in cubes of an odd size, `[D, H, W]` each."""
    from scipy.ndimage import uniform_filter  # of equal cost for any size

    sums, shares = (uniform_filter(x.float().numpy(), size, mode="constant") for x in (image * mask, mask))
    return torch.from_numpy(sums) / torch.from_numpy(shares).clamp(min=1e-6)


def measure_style(image: Tensor, labels: Tensor, classes: Sequence[str], spacing: float) -> dict[str, float]:
    """White: its median; the others are shares of it.

    Contrast, of grey to white matter: `1 - grey / white`. Fluid: the darkest twentieth of the brain. Noise: the
    deviation (from its median absolute value) of white matter from the mean of its six neighbours, `sqrt(7 / 6)` times
    a voxel's. Bias: the deviation of white matter's means over 20 mm.

    Arguments:
        image: `[1, D, H, W]` in [0, 1], 0 outside the brain.
        labels: likewise, indices of `classes`.
        spacing: of the voxels in mm.

    Raises:
        UserError: if the classes have no cortex or no white matter, or too little of it is there or in the image.
    """
    if CORTEX not in classes or WHITE not in classes:
        raise UserError(f"appearance needs labels with the classes {CORTEX} and {WHITE}, got {', '.join(classes)}")
    white, brain = labels[0] == classes.index(WHITE), image[0] > 0
    core = _mean(white.float(), torch.ones_like(brain), 3) > 0.99
    grey = image[0][(labels[0] == classes.index(CORTEX)) & brain]
    if int(core.sum()) < CORE or not len(grey):
        raise UserError(f"{int(core.sum())} voxels of white matter away from its border; expected {CORE} and more")
    level = float(image[0][core].median())
    if level <= 0:
        raise UserError("most of the white matter is 0, as background is")
    around = sum(image[0].roll(step, axis) for axis in range(3) for step in (-1, 1)) / 6
    detail = (image[0] - around)[core]
    means = _mean(image[0], core, 2 * round(REACH / spacing) + 1)[core]
    return {
        "white": level,
        "contrast": 1 - float(grey.median()) / level,
        "fluid": float(image[0][brain].quantile(0.05)) / level,
        "noise": float(detail.abs().median()) * 1.4826 / (7 / 6) ** 0.5 / level,
        "bias": float(means.std()) / level,
    }


def restyled(
    image: Tensor, labels: Tensor, classes: Sequence[str], spacing: float, style: Mapping[str, float]
) -> Tensor:
    """An image whose white and grey matter have the levels of a style, by a mapping of intensities in straight pieces.

    One whose own can't be measured stays as it is.

    Arguments:
        image, labels, classes, spacing: as of `measure_style`.
        style: at least white and contrast.
    """
    try:
        found = measure_style(image, labels, classes, spacing)
    except UserError:
        return image
    here, there = ([s["white"] * (1 - s["contrast"]), s["white"]] for s in (found, style))
    if not 0 < here[0] < here[1] < 1 or not 0 < there[0] < there[1] < 1:
        return image
    mapped = np.interp(image.double().numpy(), [0, *here, 1], [0, *there, 1])
    return torch.from_numpy(mapped).to(image.dtype)


def drawn_style(
    people: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], generator: torch.Generator
) -> dict[str, Any]:
    """Covariates and a style that go together: of one of the people, drawn by how near they are to what is wanted.

    Its style, unless that is wanted too, is blurred by a part of their deviation, so that nobody's is repeated.

    Arguments:
        people: rows of covariates and styles.
        wanted: some of them; what is in there stays.
    """
    weights = torch.ones(len(people), dtype=torch.float64)
    for name, value in wanted.items():
        if name in STYLE:
            continue
        here = [row.get(name) for row in people]
        if isinstance(value, int | float) and any(isinstance(v, int | float) for v in here):
            known = torch.tensor([v if isinstance(v, int | float) else float("nan") for v in here], dtype=torch.float64)
            distance = (known - value) / NEAR.get(name, float(known[known.isfinite()].std()) + 1e-9)
            distance = (distance.abs() - distance[known.isfinite()].abs().min()).nan_to_num(10.0)
            weights *= torch.exp(-distance.square() / 2)
        else:
            same = torch.tensor([v is not None and str(spelt(v)) == str(spelt(value)) for v in here])
            weights *= same.double() if same.any() else 1
    weights = weights.clamp(min=1e-12)
    weights /= weights.sum()
    row = people[int(torch.multinomial(weights, 1, generator=generator))]
    out = dict(row) | dict(wanted)
    for name in STYLE:
        noise = float(torch.randn((), generator=generator))
        if name not in wanted:
            values = torch.tensor([r[name] for r in people], dtype=torch.float64)
            spread = float(((values - weights @ values).square() @ weights).sqrt())
            out[name] = min(max(float(row[name]) + JITTER * spread * noise, float(values.min())), float(values.max()))
    return out
