"""Maximum mean discrepancy (Gretton et al., JMLR 2012): the unbiased one, and the one of the published evaluation.

The published one has a linear kernel and takes two brains of each kind at a time, with each brain's product with
itself: `|(x_1 + x_2)/2 - (y_1 + y_2)/2|²`. Its expectation is `|mean difference|² + (Tr S_x + Tr S_y) / 2`: it is not 0
for equal distributions, and a generator that always gives the same brain gets less than a perfect one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.metrics.sets import enough, two_sets

VOXELS = 1 << 16  # summed in float32 at a time
BLOCK = 1 << 27  # voxels of the volumes in memory together


def unbiased_mmd2(real: Tensor, synthetic: Tensor, across: Tensor) -> float:
    """Unbiased MMD² of kernel matrices `[N, N]`, `[M, M]` and `[N, M]`; around 0, also below, for equal distributions.

    Raises:
        ValueError: if the shapes don't fit.
        UserError: if there are fewer than two of a kind.
    """
    n, m = across.shape
    if real.shape != (n, n) or synthetic.shape != (m, m):
        found = [tuple(t.shape) for t in (real, synthetic, across)]
        raise ValueError(f"expected kernel matrices [N, N], [M, M] and [N, M], got {found}")
    enough(n, m, "MMD")
    within = [float(k.double().sum() - k.double().trace()) / (len(k) * (len(k) - 1)) for k in (real, synthetic)]
    return sum(within) - 2 * float(across.double().mean())


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """`(x · y / F + 1)³` of features `[N, F]` and `[M, F]`: KID's (Binkowski et al., ICLR 2018), `[N, M]`, float64."""
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def mmd2(real: Tensor, synthetic: Tensor) -> float:
    """Unbiased MMD² of features `[N, F]` and `[M, F]` with the polynomial kernel; with Inception's features it is KID.

    Errors are those of `two_sets`.
    """
    real, synthetic = two_sets(real, synthetic, "MMD")
    pairs = ((real, real), (synthetic, synthetic), (real, synthetic))
    return unbiased_mmd2(*(polynomial_kernel(x, y) for x, y in pairs))


def published_feature_mmd(real: Tensor, synthetic: Tensor) -> float:
    """The published MMD of features `[N, F]`: pairs of rows in file order, their sum over N - 1 instead of N / 2.

    So it is half the mean over pairs. Its ten passes are ten times the same. An odd last row counts as a pair with 0.

    Raises:
        ValueError: if the shapes differ.
        UserError: if there are fewer than two of a kind, or unequal numbers.
    """
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(f"expected features [N, F] twice, got {tuple(real.shape)} and {tuple(synthetic.shape)}")
    if len(real) != len(synthetic) or len(real) < 2:
        raise UserError(f"the published MMD needs as many brains of each kind, got {len(real)} and {len(synthetic)}")
    halves = (real.double() - synthetic.double()) / 2
    sums = torch.stack([rows.sum(dim=0) for rows in halves.split(2)])
    return float(sums.square().sum()) / (2 * len(sums) - 1)


class Grams(NamedTuple):
    """Sums of voxelwise products of volumes, float64: among N real, among M synthetic, and across, `[N, M]`."""

    real: Tensor
    synthetic: Tensor
    across: Tensor


def _products(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for x, y in zip(a.split(VOXELS, dim=1), b.split(VOXELS, dim=1), strict=True):
        total += (x @ y.T).double()
    return total


def gram_matrices(real: Sequence[Tensor], synthetic: Sequence[Tensor], block: int = 0) -> Grams:
    """Products of all pairs of volumes, three blocks of them in memory at most.

    Arguments:
        real, synthetic: what indexing gives volumes `[1, D, H, W]` of one grid: lists, or readers of files. Each volume
            is read about `(N + M) / (2 block)` times.
        block: volumes in one; as many as take half a gigabyte unless given.

    Raises:
        ValueError: if sizes differ.
    """
    n, total = len(real), len(real) + len(synthetic)
    places = [(real, i) for i in range(n)] + [(synthetic, i) for i in range(total - n)]
    voxels = real[0].numel()
    block = block or max(1, BLOCK // voxels)
    blocks = [range(start, min(start + block, total)) for start in range(0, total, block)]

    def load(indices: range) -> Tensor:
        flat = [source[i].float().flatten() for source, i in (places[k] for k in indices)]
        for volume in flat:
            if len(volume) != voxels:
                raise ValueError(f"volumes differ in size: {voxels} and {len(volume)} voxels")
        return torch.stack(flat)

    gram = torch.zeros(total, total, dtype=torch.float64)
    for first, rows in enumerate(blocks):
        held = load(rows)
        for columns in blocks[first:]:
            values = _products(held, held if columns is rows else load(columns)).cpu()
            gram[rows.start : rows.stop, columns.start : columns.stop] = values
            gram[columns.start : columns.stop, rows.start : rows.stop] = values.T
    return Grams(gram[:n, :n], gram[n:, n:], gram[:n, n:])


def published_image_mmd(grams: Grams, passes: int = 5, seed: int = 0) -> float:
    """The published MMD of images: neighbours in file order of the synthetic, against two real ones at random.

    Raw sums over voxels: the value grows with the grid and with the range squared ([-1, 1] as published).

    Arguments:
        grams: of the volumes.
        passes: over the synthetic volumes, each with its own draw of real pairs.
        seed: of the draws.

    Raises:
        UserError: if there are fewer than two of a kind.
    """
    n, m = grams.across.shape
    enough(n, m, "MMD")
    generator = torch.Generator().manual_seed(seed)
    a = torch.randint(n, (passes, m - 1), generator=generator)
    b = torch.randint(n - 1, (passes, m - 1), generator=generator)
    b += b >= a
    i = torch.arange(m - 1)
    x, y, xy = grams.synthetic, grams.real, grams.across
    own = x[i, i] + x[i + 1, i + 1] + 2 * x[i, i + 1]
    theirs = y[a, a] + y[b, b] + 2 * y[a, b]
    between = xy[a, i] + xy[a, i + 1] + xy[b, i] + xy[b, i + 1]
    return float((own + theirs - 2 * between).mean()) / 4
