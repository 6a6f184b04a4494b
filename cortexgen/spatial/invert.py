"""The inverse of a displacement."""

from itertools import product

import torch
from torch import Tensor

from cortexgen.spatial.precision import full_precision
from cortexgen.spatial.warp import identity, warp

CHUNK = 1 << 17  # points that are solved at once
LEAP = 10.0  # voxels, of one step
LEAST = 1e-3  # of a step that still goes on
NEIGHBOURS = [(axis, way) for axis in (0, 1, 2) for way in (1, -1)]


def _read(field: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The trilinear field `[D, H, W, 3]` at places `[n, 3]`, and its derivatives `[n, 3, 3]`, a row an axis.

    Outside the grid the field has the border's value, and no slope across it.
    """
    size = torch.tensor(field.shape[:3], device=places.device)
    inside = places.clamp(min=0).minimum((size - 1).to(places))
    low = inside.long().minimum(size - 2).clamp(min=0)
    corner = torch.stack([low, (low + 1).minimum(size - 1)])
    d, h, w = (inside - low)[:, :, None].unbind(dim=1)
    (_, height, width), flat = field.shape[:3], field.reshape(-1, 3)
    row, column, depth = corner[:, :, 1], corner[:, :, 2], corner[:, :, 0]
    start, end = (
        [flat[(depth[i] * height + row[j]) * width + column[k]] for i, j in product((0, 1), repeat=2)] for k in (0, 1)
    )
    a, b, e, f = (torch.lerp(*pair, w) for pair in zip(start, end, strict=True))
    across = [after - before for before, after in zip(start, end, strict=True)]
    near, far = torch.lerp(a, b, h), torch.lerp(e, f, h)
    along_w = torch.lerp(torch.lerp(across[0], across[1], h), torch.lerp(across[2], across[3], h), d)
    slopes = torch.stack([far - near, torch.lerp(b - a, f - e, d), along_w], dim=1)
    return torch.lerp(near, far, d), slopes * (inside == places)[:, :, None]


def _solve(slopes: Tensor, right: Tensor) -> Tensor:
    """x of `(I + slopesᵀ) x = right` for each of n, by Cramer's rule."""
    a, b, c = (slopes + torch.eye(3).to(slopes)).unbind(dim=1)
    across = [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)]
    determinant = (a * across[0]).sum(dim=1)
    determinant = torch.where(determinant.abs() < 1e-12, torch.full_like(determinant, 1e-12), determinant)
    return torch.stack([(right * v).sum(dim=1) for v in across], dim=1) / determinant[:, None]


def _newton(field: Tensor, points: Tensor, start: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Places q with `q + u(q) = p` by Newton's method, a step halved where it leads nowhere; q and what is left."""
    q = start.clone()
    value, slopes = _read(field, q)
    rest = q + value - points
    left, pace = rest.norm(dim=1), points.new_ones(len(points))
    going = torch.nonzero(left > tolerance).flatten()
    rest, slopes = rest[going], slopes[going]
    for _ in range(iterations):
        if len(going) == 0:
            break
        step = -_solve(slopes, rest)
        step *= (LEAP / step.norm(dim=1).clamp(min=LEAP) * pace[going])[:, None]
        trial = q[going] + step
        value, steeper = _read(field, trial)
        remains = trial + value - points[going]
        size = remains.norm(dim=1)
        better = size < left[going]
        good = going[better]
        q[good], left[good] = trial[better], size[better]
        pace[going] = torch.where(better, (2 * pace[going]).clamp(max=1), pace[going] / 2)
        rest = torch.where(better[:, None], remains, rest)
        slopes = torch.where(better[:, None, None], steeper, slopes)
        still = (left[going] > tolerance) & (pace[going] > LEAST)
        going, rest, slopes = going[still], rest[still], slopes[still]
    return q, left


def _places(field: Tensor, start: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Where `id + u` meets each voxel of `[D, H, W, 3]`, likewise."""
    shape = field.shape[:3]
    points = identity(shape, field.device)[0].flatten(1).T.to(field)
    chunks = zip(points.split(CHUNK), start.reshape(-1, 3).split(CHUNK), strict=True)
    parts = [_newton(field, *chunk, iterations, tolerance) for chunk in chunks]
    q, left = (torch.cat(part) for part in zip(*parts, strict=True))
    # Newton's method can stop at the kink between two voxels: the solution next to it is on the other side.
    missing = int((left > tolerance).sum())
    while missing and iterations:
        for axis, way in NEIGHBOURS:
            solved = (left <= tolerance).view(shape).roll(way, axis).flatten()
            again = torch.nonzero((left > tolerance) & solved).flatten()
            beside = q.view(*shape, 3).roll(way, axis).reshape(-1, 3)[again]
            found, remains = _newton(field, points[again], beside, iterations, tolerance)
            better = remains < left[again]
            q[again[better]], left[again[better]] = found[better], remains[better]
        before, missing = missing, int((left > tolerance).sum())
        if 2 * missing > before:
            break
    return q.view(*shape, 3)


@full_precision
def invert(displacement: Tensor, guess: Tensor | None = None, iterations: int = 50, tolerance: float = 1e-8) -> Tensor:
    """The inverse displacement w of u: `(id + u) ∘ (id + w) = id`, read as trilinear with the border's value beyond.

    Solved in float64 for every voxel by Newton's method with damping, from the neighbours' answers where that fails.
    Where u folds several places map to one: w is one of them, or the nearest that was found. w has a gradient, that of
    the implicit function theorem.

    Arguments:
        displacement: u, `[B, 3, D, H, W]` in voxels.
        guess: where to start; `-u` unless given.
        iterations: how many at most.
        tolerance: of `|u(p + w) + w|`, in voxels, before w is rounded to the type of u.

    Returns:
        w, `[B, 3, D, H, W]` in voxels.
    """
    here = identity(displacement.shape[2:], displacement.device).double()
    with torch.no_grad():
        start = here + (-displacement if guess is None else guess).double()
        fields, starts = (x.movedim(1, -1).contiguous() for x in (displacement.double(), start))
        places = torch.stack([_places(*pair, iterations, tolerance) for pair in zip(fields, starts, strict=True)])
        inverse = (places.movedim(-1, 1) - here).to(displacement.dtype)
    if not displacement.requires_grad:
        return inverse
    slopes = torch.cat([_read(f, q.reshape(-1, 3))[1] for f, q in zip(fields, places, strict=True)])
    moved = warp(displacement, inverse)
    change = _solve(slopes.to(moved.dtype), (moved - moved.detach()).movedim(1, -1).reshape(-1, 3))
    return inverse - change.view(places.shape).movedim(-1, 1)
