"""A brain is one piece without holes."""

import torch
from torch import Tensor


def solid(mask: Tensor) -> Tensor:
    """The largest piece of a mask `[1, D, H, W]`, its holes filled."""
    from scipy.ndimage import binary_fill_holes, label

    pieces, count = label(mask[0].cpu().numpy())
    if count > 1:
        sizes = torch.bincount(torch.from_numpy(pieces).flatten().long())
        pieces = pieces == 1 + int(sizes[1:].argmax())
    return torch.from_numpy(binary_fill_holes(pieces > 0))[None].to(mask.device)
