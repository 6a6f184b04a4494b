"""Distance between the surfaces of two label maps."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects
from torch import Tensor


def hd95(a: Tensor, b: Tensor, classes: int, spacing: Sequence[float]) -> Tensor:
    """95th percentile of the Hausdorff distance in mm of classes 1 to `classes - 1`, `[classes - 1]`.

    `max(P95 of d(x, S_b) for x in S_a, P95 of d(x, S_a) for x in S_b)`, where a surface is the voxels (their centres)
    that share a face with another class. A class that either map lacks is NaN.

    Arguments:
        a, b: label maps of one shape, `[1, D, H, W]`, integers in `[0, classes)`.
        spacing: of the voxels along D, H, W in mm.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"label maps differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")
    x, y = (labels.reshape(labels.shape[-3:]).cpu().numpy().astype(np.int32) for labels in (a, b))
    boxes = [find_objects(labels, max_label=classes - 1) for labels in (x, y)]
    result = torch.full((classes - 1,), torch.nan)
    for k, (box, other) in enumerate(zip(*boxes, strict=True), start=1):
        if box is None or other is None:
            continue
        both = tuple(slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(box, other, strict=True))
        masks = [labels[both] == k for labels in (x, y)]
        surfaces = [mask & ~binary_erosion(mask) for mask in masks]
        distances = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
        result[k - 1] = max(np.percentile(distances[1 - i][surfaces[i]], 95) for i in (0, 1))
    return result
