"""Overlap of label maps."""

import torch
from torch import Tensor


def dice(a: Tensor, b: Tensor, classes: int) -> Tensor:
    """Dice coefficient `2 |A ∩ B| / (|A| + |B|)` of classes 1 to `classes - 1`, `[classes - 1]`.

    A class that neither map has is NaN.

    Arguments:
        a, b: label maps of one shape, integers in `[0, classes)`.
    """
    a, b = a.flatten().long(), b.flatten().long()
    both = torch.bincount(a[a == b], minlength=classes)
    total = torch.bincount(a, minlength=classes) + torch.bincount(b, minlength=classes)
    return (2 * both.double() / total.double())[1:].float()
