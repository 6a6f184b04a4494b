"""Metrics that take the images of both sets: products and scores of pairs, and numbers of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import Metric
from cortexgen.evaluation.distribution import as_published
from cortexgen.evaluation.frame import Frame
from cortexgen.evaluation.store import Store, Volumes, digest
from cortexgen.io import write_json
from cortexgen.io.bids import Row
from cortexgen.io.output import read_record
from cortexgen.metrics.mmd import Grams, gram_matrices, published_image_mmd, unbiased_mmd2
from cortexgen.metrics.ms_ssim import ms_ssim, published_ms_ssim

Measure = Callable[[Tensor, Tensor], float]
Pairs = Sequence[tuple[int, int]]
DEGREE = 3  # of the polynomial kernel


@dataclass(frozen=True)
class Sides:
    """The real brains and a set, for metrics that take both at once.

    Attributes:
        view: the real brains' field of view.
        pairs, passes, seed: as the evaluation's options.
        kept: what was found of the real brains before.
    """

    real: Store
    synthetic: Store
    view: Frame
    pairs: int = 200
    passes: int = 1
    seed: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)

    def once(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """Something of the real brains, computed for the first set alone."""
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]

    def both(self, metric: Metric) -> tuple[Tensor, Tensor]:
        """A metric's rows of the real brains and of the set, or its numbers of every image, `[N, *]` and `[M, *]`."""
        if metric.needs == "sets":
            return metric.rows(self)

        def numbers(store: Store) -> Tensor:
            work = partial(_numbers, metric.rows, store.images())
            items = {name: i for i, name in enumerate(store.names)}
            rows = store.runner.run(work, items, f"{metric.name} of {store.name}", "brain").values()
            if lost := [str(row["reason"]) for row in rows if row["status"] == "failed"]:
                raise UserError(lost[0])
            return torch.tensor([row["numbers"] for row in rows], dtype=torch.float64)

        return self.once(f"{metric.name} {metric.protocol}", lambda: numbers(self.real)), numbers(self.synthetic)


def _numbers(measure: Callable[[Tensor], Any], volumes: Volumes, i: int) -> Row:
    return {"status": "ok", "numbers": torch.as_tensor(measure(volumes[i])).double().flatten().tolist()}


def _numbered(table: Tensor, first: int = 0) -> Tensor:
    """Each row of a table after its number, by which other rows hold something of it in a column."""
    return torch.cat([torch.arange(first, first + len(table))[:, None], table.double()], dim=1)


def _among(x: Tensor, y: Tensor) -> Tensor:
    """What numbered rows x hold of numbered rows y, `[N, M]`."""
    return x[:, 1:][:, y[:, 0].long()]


def image_products(real: Sequence[Tensor], synthetic: Sequence[Tensor], scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Numbered rows of every image's inner products with all images, real ones first."""
    grams = Grams(*(gram / scale for gram in gram_matrices(real, synthetic)))
    ours = torch.cat([grams.real, grams.across], dim=1)
    return _numbered(ours), _numbered(torch.cat([grams.across.T, grams.synthetic], dim=1), len(real))


def _blocks(x: Tensor, y: Tensor) -> Grams:
    return Grams(_among(x, x), _among(y, y), _among(x, y))


def _polynomial_mmd(x: Tensor, y: Tensor) -> float:
    return unbiased_mmd2(*((block + 1) ** DEGREE for block in _blocks(x, y)))


def _published_mmd(x: Tensor, y: Tensor) -> float:
    return published_image_mmd(_blocks(x, y))


def _per_voxel(sides: Sides) -> tuple[Tensor, Tensor]:
    real, synthetic = sides.real.images(), sides.synthetic.images()
    return image_products(real, synthetic, real[0].numel())


def _published_products(sides: Sides) -> tuple[Tensor, Tensor]:
    return image_products(as_published(sides.real, sides.view), as_published(sides.synthetic, sides.view))


@dataclass(frozen=True)
class _Side:
    """Images of a set, prepared, and where they come from."""

    volumes: Volumes
    store: Store


def _scores(
    measure: Measure, first: _Side, second: _Side, pairs: Pairs, what: str, view: Frame, version: int = 1
) -> Tensor:
    """`measure(first[i], second[j])` of some pairs as a matrix, NaN elsewhere, kept in the second set's folder.

    Arguments:
        what: a name for the scores.
        version: of the measure; raised when it gives something else for the same images.

    Raises:
        UserError: if it fails.
    """
    store = second.store
    table = torch.full((len(first.volumes), len(second.volumes)), torch.nan, dtype=torch.float64)
    keys = {f"{i} {j}": f"{first.store.key(i)} {second.store.key(j)}" for i, j in pairs}
    mark = digest([what, version, view.key, sorted(keys.items())])
    path = store.folder / f"{what.replace(' ', '-').lower()}-{mark:.12}.json"
    found = read_record(path).get("scores")
    if not found:
        items = {f"{i} {j}": (i, j) for i, j in pairs}
        work = partial(_score, measure, first.volumes, second.volumes)
        rows = store.runner.run(work, items, f"{what} of {store.name}", "pair")
        if lost := [str(row["reason"]) for row in rows.values() if row["status"] == "failed"]:
            raise UserError(lost[0])
        found = {name: row["score"] for name, row in rows.items()}
        write_json(path, {"scores": found})
    for i, j in pairs:
        table[i, j] = found[f"{i} {j}"]
    return table


def _score(measure: Measure, first: Sequence[Tensor], second: Sequence[Tensor], pair: tuple[int, int]) -> Row:
    return {"status": "ok", "score": measure(first[pair[0]], second[pair[1]])}


def _within(measure: Measure, side: _Side, pairs: int, seed: int, what: str, view: Frame) -> Tensor:
    """`_scores` of random pairs of one set, symmetric."""
    every = torch.combinations(torch.arange(len(side.volumes)))
    drawn = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:pairs]]
    table = _scores(measure, side, side, drawn.tolist(), what, view)
    return torch.where(table.isnan(), table.T, table)


def diversity(store: Store, view: Frame, pairs: int, seed: int = 0) -> Tensor:
    """MS-SSIM of pairs within a set, in the frame's box, `[N, N]`, NaN for pairs not drawn.

    Raises:
        UserError: if there are fewer than two brains, or the grid is too small.
    """
    if len(store) < 2:
        raise UserError(f"MS-SSIM needs 2 or more brains, got {len(store)}")
    return _within(partial(_ms_ssim, view), _Side(store.images(), store), pairs, seed, "MS-SSIM", view)


def _ms_ssim(view: Frame, a: Tensor, b: Tensor) -> float:
    return ms_ssim(a, b, view.mask)


def _diversities(sides: Sides) -> tuple[Tensor, Tensor]:
    def scores(store: Store) -> Tensor:
        return _numbered(diversity(store, sides.view, sides.pairs, sides.seed))

    return sides.once("ms_ssim standard", lambda: scores(sides.real)), scores(sides.synthetic)


def _across(x: Tensor, y: Tensor) -> float:
    """The mean score of pairs of numbered rows."""
    return float(_among(x, y).nanmean())


def _alone(x: Tensor) -> float:
    return _across(x, x)


def published_scores(real: Store, synthetic: Store, view: Frame, passes: int, seed: int = 0) -> Tensor:
    """The published MS-SSIM of each synthetic brain against real ones at random, `[N, M]`, NaN for pairs not drawn."""
    theirs, ours = (_Side(as_published(store, view), store) for store in (real, synthetic))
    partners = torch.randint(len(real), (passes, len(synthetic)), generator=torch.Generator().manual_seed(seed))
    drawn = [(i, j) for row in partners.tolist() for j, i in enumerate(row)]
    return _scores(published_ms_ssim, theirs, ours, drawn, "published MS-SSIM", view)


def published_real_scores(real: Store, view: Frame, pairs: int, seed: int = 0) -> Tensor:
    """The published MS-SSIM of pairs of real brains, its means shifted, `[N, N]`, NaN for pairs not drawn."""
    score = partial(published_ms_ssim, shifted=True)
    return _within(score, _Side(as_published(real, view), real), pairs, seed, "published MS-SSIM of real brains", view)


def _published_pairs(sides: Sides) -> tuple[Tensor, Tensor]:
    """Real brains' scores among themselves, by another formula, and with the set's; the set's own numbers alone."""
    real, view, seed = sides.real, sides.view, sides.seed
    across = published_scores(real, sides.synthetic, view, sides.passes, seed)
    within = sides.once("ms_ssim paper", lambda: published_real_scores(real, view, sides.pairs, seed))
    return _numbered(torch.cat([within, across], dim=1)), _numbered(torch.zeros(across.shape[1], 0), len(real))


WITHIN, AGAINST = "MS-SSIM within the set", "MS-SSIM against real brains"
METRICS = (
    Metric("image_mmd", "Image MMD²", "sets", _polynomial_mmd, _per_voxel),
    Metric("image_mmd", "Image MMD, linear, pairs", "sets", _published_mmd, _published_products, protocol="paper"),
    Metric("ms_ssim", WITHIN, "sets", lambda _, y: _alone(y), _diversities, "real", alone=_alone, card=WITHIN),
    Metric("ms_ssim", AGAINST, "sets", _across, _published_pairs, None, protocol="paper", alone=_alone, card=AGAINST),
)
