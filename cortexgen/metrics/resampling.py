"""What a statistic would be with other brains: bootstrap intervals, and real brains against real ones."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.errors import UserError

Statistic = Callable[..., float]
Rows = list[Tensor]
Mapped = Callable[[Callable[[Rows], float], Sequence[Rows]], Iterable[float]]


class Interval(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Statistic,
    *samples: Tensor,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    mapped: Mapped = map,
) -> Interval:
    """Bootstrap interval of a statistic of one or more samples, their rows drawn again independently.

    Resamples hold rows twice, which shifts distances between distributions (FID, unbiased MMD) upwards. So the
    percentile interval is moved by what brings the mean of the resamples to the value: it says how far the value would
    vary with other brains of the same numbers, and nothing about its bias at these numbers.

    Arguments:
        statistic: takes tensors like the samples, returns a number; resamples that it returns NaN for are left out.
        samples: `[N_k, *]` each: features, or `torch.arange(N)` where the statistic looks something up by index.
        n: resamples.
        level: share of intervals that should hold the expected value.
        seed: of the draws.
        mapped: how the statistic is called for all resamples: one after the other, or several at a time.

    Raises:
        UserError: if there are fewer than two rows in a sample or two resamples, or the level isn't within 0 and 1.
    """
    if not samples or min(map(len, samples)) < 2 or n < 2:
        found = " and ".join(str(len(sample)) for sample in samples)
        raise UserError(f"a bootstrap needs 2 or more brains of each kind and 2 or more resamples, got {found} and {n}")
    if not 0 < level < 1:
        raise UserError(f"the level of an interval lies between 0 and 1, got {level}")
    generator = torch.Generator().manual_seed(seed)
    draws = [[torch.randint(len(s), (len(s),), generator=generator) for s in samples] for _ in range(n)]
    values = _each(statistic, samples, [[torch.arange(len(s)) for s in samples], *draws], mapped)
    value, drawn = float(values[0]), values[1:]
    low, high = (float(drawn.nanquantile(q)) for q in ((1 - level) / 2, (1 + level) / 2))
    shift = value - float(drawn.nanmean())
    return Interval(value, low + shift, high + shift)


def _each(statistic: Statistic, samples: Sequence[Tensor], draws: Sequence[Rows], mapped: Mapped) -> Tensor:
    """The statistic of every drawn set of rows, in order."""

    def value(rows: Rows) -> float:
        return float(statistic(*(sample[row] for sample, row in zip(samples, rows, strict=True))))

    return torch.tensor(list(mapped(value, draws)), dtype=torch.float64)


def percentiles(
    statistic: Callable[..., Tensor], *samples: Tensor, draws: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The 2.5th and 97.5th percentile of a statistic over resamples of each sample with replacement, `[K]` each.

    Arguments:
        statistic: takes tensors like the samples, returns `[K]`; a resample that it refuses with a `UserError` (one
            brain again and again) is drawn again.
        samples: `[N_k, *]` each, or `torch.arange(N)` where the statistic looks something up by index.
    """
    generator, found = torch.Generator().manual_seed(seed), list[Tensor]()
    while len(found) < draws:
        rows = [torch.randint(len(sample), (len(sample),), generator=generator) for sample in samples]
        with suppress(UserError):
            found.append(statistic(*(sample[row] for sample, row in zip(samples, rows, strict=True))))
    low, high = torch.stack(found).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return low, high


def real_against_real(
    statistic: Statistic, features: Tensor, n: int, repeats: int = 10, seed: int = 0, mapped: Mapped = map
) -> Tensor:
    """A statistic of n real rows and n others, `[repeats]`: what a perfect generator would get at this number.

    Arguments:
        statistic: of two samples.
        features: of real brains, `[N, *]`, or `torch.arange(N)`.
        n: rows of each side, N // 2 at most: compare with `same_size` of the synthetic brains at the same n.
        repeats: divisions at random.
        seed: of the draws.
        mapped: as of `bootstrap_interval`.

    Raises:
        UserError: if there are fewer than 2 n rows.
    """
    if n < 1 or 2 * n > len(features):
        raise UserError(f"real against real at {n} needs {2 * n} or more real brains, got {len(features)}")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(features), generator=generator) for _ in range(repeats)]
    return _each(statistic, (features, features), [[o[:n], o[n : 2 * n]] for o in orders], mapped)


def same_size(
    statistic: Statistic,
    real: Tensor,
    synthetic: Tensor,
    n: int,
    repeats: int = 10,
    seed: int = 0,
    mapped: Mapped = map,
) -> Tensor:
    """A statistic of n real and n synthetic rows, drawn without replacement, `[repeats]`; `mapped` as above.

    Raises:
        UserError: if there are fewer than n rows of a kind.
    """
    if n < 1 or n > min(len(real), len(synthetic)):
        raise UserError(f"a comparison at {n} needs {n} brains of each kind, got {len(real)} and {len(synthetic)}")
    generator, sets = torch.Generator().manual_seed(seed), (real, synthetic)
    rows = [[torch.randperm(len(each), generator=generator)[:n] for each in sets] for _ in range(repeats)]
    return _each(statistic, sets, rows, mapped)
