"""Whether generated brains are training subjects again, in the shape that their log-Jacobians describe."""

from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.distances import pairwise_distances
from cortexgen.metrics.gaussian import gaussian

FRACTION = 0.5  # of the usual distance, and of that to the second nearest: a copy is nearer


class Nearest(NamedTuple):
    """The training subject nearest to each of M maps.

    Attributes:
        distance: to it, root mean square of log |J|, `[M]`, float64.
        ratio: that over the distance to the second nearest subject, `[M]`.
        subject: its index, `[M]`.
        mirrored: whether its mirror image is the nearer one, `[M]` bool.
    """

    distance: Tensor
    ratio: Tensor
    subject: Tensor
    mirrored: Tensor


class Memorization(NamedTuple):
    """How near samples come to training subjects, beside held-out real subjects, who can't be copies.

    Attributes:
        generated, held_out: the nearest training subject of each.
        median_generated, median_held_out: of the distances.
        ratio: of those medians: about 1 if samples are like new subjects; less if they are copies or vary too little.
        copies: which samples are flagged, `[M]` bool.
    """

    generated: Nearest
    held_out: Nearest
    median_generated: float
    median_held_out: float
    ratio: float
    copies: Tensor


def nearest_subjects(
    train: Tensor, maps: Tensor | None, sigma: float, mirror: bool = True, mask: Tensor | None = None
) -> Nearest:
    """The nearest training subject of each map, in log |J| smoothed by a Gaussian.

    Arguments:
        train: log |J| on the template's grid, `[N, 1, d, h, w]`, one map a subject: a second visit would pass for a
            second nearest subject.
        maps: `[M, 1, d, h, w]`; None for the training subjects, each against the others.
        sigma: of the Gaussian in voxels; 0 for none.
        mirror: take the mirror image of a training subject (last axis reversed) for the same subject.
        mask: of voxels that count, `[1, d, h, w]` or `[d, h, w]`; all unless given.

    Raises:
        ValueError: if the grids differ.
        UserError: if there are fewer than two training subjects (three, each against the others), or no maps.
    """
    itself = maps is None
    maps = train if maps is None else maps
    if train.ndim != 5 or train.shape[1:] != maps.shape[1:]:
        raise ValueError(f"expected maps [N, 1, d, h, w] of one grid, got {tuple(train.shape)} and {tuple(maps.shape)}")
    if len(train) < 2 + itself or len(maps) < 1:
        found = f"{len(train)} and {len(maps)}"
        least = f"{2 + itself} or more training subjects and 1 or more brains"
        raise UserError(f"nearest neighbours need {least}, got {found}")
    train = gaussian(train, sigma)
    maps = train if itself else gaussian(maps, sigma)
    inside = torch.ones_like(maps[0, 0], dtype=torch.bool) if mask is None else mask.bool().reshape(maps.shape[2:])
    images = [train, train.flip(-1)] if mirror else [train]
    both = torch.stack([pairwise_distances(maps[:, :, inside], image[:, :, inside]) for image in images])
    if itself:
        both[:, range(len(train)), range(len(train))] = torch.inf
    closer, image = both.min(dim=0)
    two, index = closer.topk(2, dim=1, largest=False)
    nearest = index[:, 0]
    return Nearest(two[:, 0], two[:, 0] / two[:, 1], nearest, image.gather(1, nearest[:, None])[:, 0] == 1)


def memorization(
    train: Tensor,
    held_out: Tensor | None,
    generated: Tensor,
    sigma: float,
    mirror: bool = True,
    mask: Tensor | None = None,
) -> Memorization:
    """Compare samples with held-out subjects in how near they come to the training subjects.

    A sample is flagged as a copy if it is nearer to a training subject than `FRACTION` of the held-out median, and also
    than `FRACTION` of its distance to the second nearest. Where subjects lie with locally even density in D effective
    dimensions, `ratio^D` is uniform: a new brain has a ratio below 1/2 with probability 2^-D, however many held-out
    subjects there are. (Of 56 registered real brains, each against the others, the smallest ratio was 0.91 at a sigma
    of 4 mm and 0.81 at 16 mm; D about 50 and 20.) The distance alone would flag samples that vary too little, near to
    all subjects alike; the ratio alone those beside an outlier. Between maps of equal variance the squared distance is
    proportional to 1 minus their correlation, so half the usual distance is a correlation of about 0.75.

    Arguments:
        train, held_out, generated: log |J| on the template's grid, `[N, 1, d, h, w]` each; where nobody is held out
            (None), the training subjects take their place, each against the others.
        sigma, mirror, mask: those of `nearest_subjects`, as are errors.
    """
    samples, reference = (nearest_subjects(train, maps, sigma, mirror, mask) for maps in (generated, held_out))
    ours, theirs = (float(nearest.distance.quantile(0.5)) for nearest in (samples, reference))
    copies = (samples.distance < FRACTION * theirs) & (samples.ratio < FRACTION)
    return Memorization(samples, reference, ours, theirs, ours / theirs, copies)
