"""Whether parts of generated brains are parts of training subjects, with false alarms at a known rate."""

from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor

from cortexgen.errors import UserError

RATE = 0.05  # of new people that are flagged
LEAST = 0.5  # of a patch that counts: the share within the mask
CLOSEST = 1 - 1e-6  # correlation whose arctanh is taken, at most


class NearestPatches(NamedTuple):
    """Of each of M brains the patch that is one training subject's more than any other's.

    Attributes:
        margin: how much nearer to the nearest subject than to the second, `[M]`: the difference of the correlations'
            arctanh.
        correlation: with the nearest, `[M]`.
        subject: which one it is, `[M]`.
        place: first voxel (D, H, W) of the patch, `[M, 3]`.
    """

    margin: Tensor
    correlation: Tensor
    subject: Tensor
    place: Tensor


class PatchMemorization(NamedTuple):
    """Margins of generated brains beside those of people that can't be copies.

    Attributes:
        generated, reference: the nearest patches of each.
        p: of each generated brain, `[M]`: the share of such people, and itself, with as large a margin.
        flagged: with p up to `RATE`, `[M]` bool.
        beyond: whose margin is above everybody's in the reference, `[M]` bool.
        chance: of so many flagged ones, or more, if all were new people.
    """

    generated: NearestPatches
    reference: NearestPatches
    p: Tensor
    flagged: Tensor
    beyond: Tensor
    chance: float


def places(mask: Tensor, size: int) -> list[tuple[int, int, int]]:
    """First voxels of patches of `size` voxels a side that fill a mask `[D, H, W]` side by side, its mirror images'
    (last axis) among them."""
    d, h, w = mask.shape
    middle = [w // 2 - k * size for k in range(w // 2 // size, 0, -1)]
    across = [*middle, *(w - size - first for first in reversed(middle))]
    every = [(i, j, k) for i in range(0, d - size + 1, size) for j in range(0, h - size + 1, size) for k in across]
    both = mask | mask.flip(-1)
    return [p for p in every if _cut(both.float(), p, size).mean() >= LEAST]


def _cut(volumes: Tensor, place: tuple[int, int, int], size: int) -> Tensor:
    i, j, k = place
    return volumes[..., i : i + size, j : j + size, k : k + size]


def _units(patches: Tensor) -> Tensor:
    """Patches without their means, of length 1, `[N, size³]`; one without any contrast is 0."""
    patches = patches.flatten(1).float()
    patches = patches - patches.mean(dim=1, keepdim=True)
    return patches / torch.linalg.vector_norm(patches, dim=1, keepdim=True).clamp(min=1e-6)


def nearest_patches(train: Tensor, maps: Tensor | None, mask: Tensor, size: int) -> NearestPatches:
    """The patch of each brain that is nearest to one training subject, compared with the second nearest.

    A patch is compared with those at the same place, and at the mirrored place in mirror images.

    Arguments:
        train: of training subjects, `[N, D, H, W]`, symmetric about the middle of the last axis.
        maps: `[M, D, H, W]`; None for the training subjects, each against the others.
        mask: where patches are taken, `[D, H, W]`.
        size: of a patch, voxels a side.

    Raises:
        UserError: if there are fewer than two training subjects (three, each against the others), no brains, or no
            place for a patch.
    """
    itself, maps = maps is None, train if maps is None else maps
    if len(train) < 2 + itself or len(maps) < 1:
        least = f"{2 + itself} or more training subjects and 1 or more brains"
        raise UserError(f"patches need {least}, got {len(train)} and {len(maps)}")
    where = places(mask, size)
    if not where:
        raise UserError(f"no patch of {size} voxels a side fits into where the brains are")
    best = NearestPatches(
        torch.full((len(maps),), -torch.inf),
        torch.zeros(len(maps)),
        torch.zeros(len(maps), dtype=torch.long),
        torch.zeros(len(maps), 3, dtype=torch.long),
    )
    for place in where:
        ours = _units(_cut(maps, place, size))
        across = (*place[:2], maps.shape[-1] - size - place[2])
        both = (_cut(train, place, size), _cut(train, across, size).flip(-1))
        found = torch.maximum(*(ours @ _units(each).T for each in both))
        if itself:
            found.fill_diagonal_(-torch.inf)
        two, subjects = found.topk(2, dim=1)
        first, second = two.clamp(-CLOSEST, CLOSEST).atanh().unbind(dim=1)
        better = first - second > best.margin
        best.margin[better] = (first - second)[better]
        best.correlation[better] = two[better, 0]
        best.subject[better] = subjects[better, 0]
        best.place[better] = torch.tensor(place)
    return best


def patch_memorization(
    train: Tensor, held_out: Tensor | None, generated: Tensor, mask: Tensor, size: int
) -> PatchMemorization:
    """Flag brains of which a part is one training subject's more than parts of new people are.

    A copied part is near to one subject and not to the others, while what is smooth or average is near to all alike, so
    that the margin between the two nearest tells it. New people's margins are those of held-out ones and of training
    subjects, each against the others. If a generated brain is like a new person, all orders of its margin and theirs
    are equally likely, so that it is flagged with a probability of at most `RATE` (conformal p; Vovk et al., 2005); the
    number of flagged ones is compared with the binomial distribution.

    Arguments:
        train, held_out, generated, mask, size: as of `nearest_patches`.

    Raises:
        UserError: as `nearest_patches`.
    """
    known = [nearest_patches(train, None, mask, size)]
    if held_out is not None and len(held_out):
        known.append(nearest_patches(train, held_out, mask, size))
    reference = NearestPatches(*(torch.cat(parts) for parts in zip(*known, strict=True)))
    found = nearest_patches(train, generated, mask, size)
    above = (reference.margin[None] >= found.margin[:, None]).sum(dim=1)
    p = (1 + above.double()) / (1 + len(reference.margin))
    flagged = p <= RATE
    chance = float(binom.sf(int(flagged.sum()) - 1, len(p), RATE))
    return PatchMemorization(found, reference, p, flagged, above == 0, chance)
