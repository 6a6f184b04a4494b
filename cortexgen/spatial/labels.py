"""Label maps on other grids, at the cost of the voxels that the labels fill, however large their numbers are."""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from scipy.ndimage import find_objects
from torch import Tensor

from cortexgen.spatial.resample import resample

SPREAD = 100_000  # of numbers that are counted rather than sorted, which takes ten times as long


def present_labels(labels: Tensor) -> Tensor:
    """The numbers that occur in a label map, sorted."""
    low, high = int(labels.min()), int(labels.max())
    if high - low > SPREAD:
        return labels.unique()
    return torch.bincount((labels - low).flatten()).nonzero().flatten() + low


def label_shares(labels: Tensor, affine: Tensor, shape: Sequence[int], affine_to: Tensor) -> Iterator[tuple]:
    """Each label that occurs, resampled as an indicator, in ascending order.

    Arguments:
        labels: `[1, D, H, W]`, integers, on the grid of `affine` `[4, 4]`.
        shape, affine_to: the grid wanted.

    Yields:
        The label, the box of the new grid that it may reach, and its share of each voxel there.
    """
    present = present_labels(labels)
    places = torch.searchsorted(present, labels[0].contiguous())
    between = torch.linalg.inv(affine.double()) @ affine_to.double()
    # A coarser grid is smoothed first: a label reaches as many voxels further as one of its steps is long.
    reach = between[:3, :3].abs().amax(dim=1).clamp(min=1).ceil().long().tolist()
    for k, box in zip(present.tolist(), find_objects(places.cpu().numpy() + 1), strict=True):
        low = [max(0, side.start - r) for side, r in zip(box, reach, strict=True)]
        high = [min(n, side.stop + r) for side, r, n in zip(box, reach, places.shape, strict=True)]
        start, stop = _reached(between, low, high, shape)
        size = [b - a for a, b in zip(start, stop, strict=True)]
        if min(size) > 0:
            indicator = (labels[0][tuple(map(slice, low, high))] == k).float()[None, None]
            share = resample(indicator, _moved(affine, low), size, _moved(affine_to, start))[0, 0]
            yield k, tuple(map(slice, start, stop)), share


def resample_labels(labels: Tensor, affine: Tensor, shape: Sequence[int], affine_to: Tensor) -> Tensor:
    """A label map `[1, D, H, W]` on another grid: the label of the largest resampled indicator, of two the smaller."""
    best = torch.full(tuple(shape), -1.0)
    winner = torch.zeros(tuple(shape), dtype=torch.int64)
    for k, box, share in label_shares(labels, affine, shape, affine_to):
        better = share > best[box]
        winner[box][better] = k
        best[box] = torch.maximum(best[box], share)
    return winner[None]


def _moved(affine: Tensor, start: Sequence[int]) -> Tensor:
    """The affine of the part of a grid that begins at voxel `start`."""
    moved = affine.double().clone()
    moved[:3, 3] += moved[:3, :3] @ torch.tensor(start, dtype=torch.float64)
    return moved


def _reached(between: Tensor, low: Sequence[int], high: Sequence[int], shape: Sequence[int]) -> list[list[int]]:
    """Where the voxels of a grid begin and end that lie in a box of another one, or next to it."""
    corners = torch.tensor(list(product(*zip([a - 1 for a in low], high, strict=True))), dtype=torch.float64).T
    back = torch.linalg.inv(between)
    there = back[:3, :3] @ corners + back[:3, 3:]
    first, last = there.amin(dim=1).floor().long(), there.amax(dim=1).ceil().long()
    return [first.clamp(min=0).tolist(), (last + 1).minimum(torch.tensor(shape)).tolist()]
