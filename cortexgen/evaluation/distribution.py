"""Distances between the distributions of two sets, from features of their images and from the images themselves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import Better, Comparison, Protocol, rows
from cortexgen.evaluation.store import Store, Volumes
from cortexgen.io.bids import Row
from cortexgen.metrics.box import bounding_box
from cortexgen.metrics.coverage import precision_and_coverage
from cortexgen.metrics.features import extract_features, paper_input, published_real_rows, standard_input
from cortexgen.metrics.frechet import frechet_distance
from cortexgen.metrics.medicalnet import MedicalNet, load_medicalnet
from cortexgen.metrics.mmd import Grams, gram_matrices, mmd2, published_feature_mmd, published_image_mmd, unbiased_mmd2
from cortexgen.metrics.ms_ssim import ms_ssim, published_ms_ssim
from cortexgen.metrics.random_features import RandomFeatures
from cortexgen.runner.cohort import Runner

Network = MedicalNet | RandomFeatures
Prepare = Callable[[Tensor], Tensor]
Measure = Callable[[Tensor, Tensor], float]
Pairs = Sequence[tuple[int, int]]
SHARE = 0.02  # of the real brains that have tissue where the brain's box reaches
DEGREE = 3  # of the polynomial kernel
NEIGHBOURS = 5


def load_extractors(paths: Sequence[Path], random_features: bool = True) -> list[Network]:
    """MedicalNet from published checkpoint files, or from the folders that hold them, and random features.

    Raises:
        UserError: if a file is missing, has the wrong hash, or a folder has no checkpoint.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("resnet_*.pth")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--medicalnet {path}: no resnet_*.pth in this folder")
        files += found
    return [*map(load_medicalnet, files), *([RandomFeatures()] if random_features else [])]


@dataclass(frozen=True)
class Frame:
    """The field of view of the real brains, which all sets are looked at in.

    Attributes:
        shape: of the grid.
        low, high: first and last voxel (D, H, W) of the box of where they have tissue.
    """

    shape: tuple[int, ...]
    low: list[int]
    high: list[int]

    @property
    def mask(self) -> Tensor:
        """The box, `[1, D, H, W]` bool."""
        mask = torch.zeros(1, *self.shape, dtype=torch.bool)
        d, h, w = (slice(low, high + 1) for low, high in zip(self.low, self.high, strict=True))
        mask[:, d, h, w] = True
        return mask

    @property
    def key(self) -> str:
        """Says which box."""
        return f"{self.low} {self.high}"


def frame(real: Store) -> Frame:
    """The box of where at least 2 % of the real brains have tissue."""
    count = torch.zeros(1, *real.grid.shape)
    for i in range(len(real)):
        count += real.image(i) > BRAIN_FOREGROUND
    box = bounding_box(count >= max(1.0, SHARE * len(real)))
    if box is None:
        raise UserError(f"{real.brains.path}: no voxel of any image is brighter than air")
    return Frame(real.grid.shape, *box)


def paper_volumes(store: Store, view: Frame) -> Volumes:
    """What the published evaluation takes, [-1, 1] brought to [0, 1]: `as_published` undoes it."""
    return store.prepared("paper", view.key, partial(_unit_paper_input, view))


def _unit_paper_input(view: Frame, image: Tensor) -> Tensor:
    return (paper_input(image, view.mask) + 1) / 2


def as_published(store: Store, view: Frame) -> Volumes:
    """What the published evaluation takes, in [-1, 1]."""
    volumes = paper_volumes(store, view)
    return Volumes(len(volumes), partial(_signed, volumes))


def _signed(volumes: Volumes, i: int) -> Tensor:
    return volumes[i] * 2 - 1


def features(store: Store, network: Network, protocol: Protocol, view: Frame, device: str) -> Tensor:
    """Features of every brain of a set in a protocol's input, `[N, F]`, kept on disk.

    Random features see the image itself in the standard protocol, trained ones a standardized one.
    """
    trained = isinstance(network, MedicalNet)
    if protocol == "paper":
        source, prepare = (as_published if trained else paper_volumes)(store, view), None
    else:
        source, prepare = store.images(), standard_input if trained else None
    key = f"{network.sha256} {protocol} {view.key if protocol == 'paper' else ''}"
    found = store.measure(f"{network.name}-{protocol}", key, partial(_features, network, device, source, prepare))
    return torch.stack([torch.from_numpy(found[i]["features"]) for i in sorted(found)])


def _features(network: Network, device: str, source: Volumes, prepare: Prepare | None, i: int) -> dict[str, Any]:
    return {"features": extract_features(network.to(device), [source[i]], prepare)[0]}


def feature_comparisons(real: Tensor, synthetic: Tensor, network: Network, protocol: Protocol) -> list[Comparison]:
    """Distances between features `[N, F]` and `[M, F]`: a Fréchet distance, and MMD.

    The paper's features of real brains are those of the first half, each twice.
    """
    trained = isinstance(network, MedicalNet)
    key = network.name.replace("resnet_", "resnet").replace("_23dataset", "_23") if trained else "random"
    title = network.distance[:1].upper() + network.distance[1:]
    source = network.label

    def add(
        name: str,
        title: str,
        statistic: Callable[[Tensor, Tensor], float],
        better: Better = "lower",
        low: float = -math.inf,
        high: float = math.inf,
    ) -> None:
        title = title + f" ({key})" * trained
        found.append(
            Comparison(f"{name}_{key}", title, protocol, statistic, real, synthetic, better, source, (low, high))
        )

    found: list[Comparison] = []
    if protocol == "paper":
        add("fid", title, lambda x, y: frechet_distance(published_real_rows(x), y))
        add("mmd", "Feature MMD, linear, pairs", lambda x, y: published_feature_mmd(*_same_number(x, y)))
        return found
    add("fid", title, frechet_distance)
    add("mmd", "Feature MMD²", mmd2)
    if len(real) > NEIGHBOURS:
        add("density", "Density", _coverage("density"), 1.0, 0.0)
        add("coverage", "Coverage", _coverage("coverage"), "higher", 0.0, 1.0)
    return found


def _same_number(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The published MMD pairs rows, of which it takes as many as both have, the real ones doubled."""
    n = min(len(x), len(y))
    return published_real_rows(x[:n]), y[:n]


def _coverage(which: str) -> Callable[[Tensor, Tensor], float]:
    def statistic(x: Tensor, y: Tensor) -> float:
        k = min(NEIGHBOURS, len(x) - 1)
        return float(getattr(precision_and_coverage(torch.cdist(x, y), torch.cdist(x, x), k), which))

    return statistic


def image_mmd(real: Sequence[Tensor], synthetic: Sequence[Tensor], protocol: Protocol) -> Comparison:
    """MMD of the images: linear in pairs as published, or with a polynomial kernel of products per voxel, unbiased."""
    grams = gram_matrices(real, synthetic)
    every = torch.cat(
        [torch.cat([grams.real, grams.across], dim=1), torch.cat([grams.across.T, grams.synthetic], dim=1)]
    )
    n, m = len(real), len(synthetic)
    size = real[0].numel()

    def blocks(x: Tensor, y: Tensor) -> Grams:
        return Grams(every[x][:, x], every[y][:, y], every[x][:, y])

    def published(x: Tensor, y: Tensor) -> float:
        return published_image_mmd(blocks(x, y))

    def polynomial(x: Tensor, y: Tensor) -> float:
        return unbiased_mmd2(*((block / size + 1) ** DEGREE for block in blocks(x, y)))

    paper = protocol == "paper"
    statistic, title = (published, "Image MMD, linear, pairs") if paper else (polynomial, "Image MMD²")
    return Comparison("image_mmd", title, protocol, statistic, rows(n), rows(m, n), source="images")


def _drawn(n: int, pairs: int, seed: int) -> Pairs:
    every = torch.combinations(torch.arange(n))
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    return every[order[:pairs]].tolist()


def _scores(
    measure: Measure, first: Sequence[Tensor], second: Sequence[Tensor], pairs: Pairs, what: str, runner: Runner
) -> Tensor:
    """`measure(first[i], second[j])` of some pairs as a matrix, NaN elsewhere.

    Raises:
        UserError: if it fails.
    """
    table = torch.full((len(first), len(second)), torch.nan, dtype=torch.float64)
    items = {f"{i} {j}": (i, j) for i, j in pairs}
    for name, row in runner.run(partial(_score, measure, first, second), items, what, "pair").items():
        if row["status"] == "failed":
            raise UserError(row["reason"])
        table[items[name]] = row["score"]
    return table


def _score(measure: Measure, first: Sequence[Tensor], second: Sequence[Tensor], pair: tuple[int, int]) -> Row:
    return {"status": "ok", "score": measure(first[pair[0]], second[pair[1]])}


def _within(measure: Measure, volumes: Sequence[Tensor], pairs: int, seed: int, what: str, runner: Runner) -> Tensor:
    """`_scores` of random pairs of one set, symmetric."""
    table = _scores(measure, volumes, volumes, _drawn(len(volumes), pairs, seed), what, runner)
    return torch.where(table.isnan(), table.T, table)


def diversity(store: Store, view: Frame, pairs: int, seed: int = 0) -> Tensor:
    """MS-SSIM of pairs within a set, in the frame's box, `[N, N]`, NaN for pairs not drawn.

    Raises:
        UserError: if there are fewer than two brains, or the grid is too small.
    """
    if len(store) < 2:
        raise UserError(f"MS-SSIM needs 2 or more brains, got {len(store)}")
    what = f"MS-SSIM of {store.name}"
    return _within(partial(_ms_ssim, view), store.images(), pairs, seed, what, store.runner)


def _ms_ssim(view: Frame, a: Tensor, b: Tensor) -> float:
    return ms_ssim(a, b, view.mask)


def ms_ssim_comparison(real: Tensor, synthetic: Tensor) -> Comparison:
    """Mean MS-SSIM within a set, beside that within the real one; `[N, N]` and `[M, M]` of `diversity`."""
    floor = float(real.nanmean())
    title = "MS-SSIM within the set"

    def within(_: Tensor, y: Tensor) -> float:
        return float(synthetic[y][:, y].nanmean())

    def real_within(x: Tensor) -> float:
        return float(real[x][:, x].nanmean())

    return Comparison(
        "ms_ssim", title, "standard", within, rows(len(real)), rows(len(synthetic)), floor, "images", alone=real_within
    )


def published_scores(real: Store, synthetic: Store, view: Frame, passes: int, seed: int = 0) -> Tensor:
    """The published MS-SSIM of each synthetic brain against real ones at random, `[N, M]`, NaN for pairs not drawn."""
    theirs, ours = as_published(real, view), as_published(synthetic, view)
    partners = torch.randint(len(real), (passes, len(synthetic)), generator=torch.Generator().manual_seed(seed))
    drawn = [(i, j) for row in partners.tolist() for j, i in enumerate(row)]
    return _scores(published_ms_ssim, theirs, ours, drawn, f"published MS-SSIM of {synthetic.name}", synthetic.runner)


def published_real_scores(real: Store, view: Frame, pairs: int, seed: int = 0) -> Tensor:
    """The published MS-SSIM of pairs of real brains, its means shifted, `[N, N]`, NaN for pairs not drawn."""
    score, what = partial(published_ms_ssim, shifted=True), f"published MS-SSIM of {real.name}"
    return _within(score, as_published(real, view), pairs, seed, what, real.runner)


def published_ms_ssim_comparison(across: Tensor, real: Tensor) -> Comparison:
    """The published MS-SSIM of a set, and what its authors give for real pairs: another formula."""
    n, m = across.shape

    def generated(x: Tensor, y: Tensor) -> float:
        return float(across[x][:, y].nanmean())

    def real_within(x: Tensor) -> float:
        return float(real[x][:, x].nanmean())

    title = "MS-SSIM against real brains"
    return Comparison("ms_ssim", title, "paper", generated, rows(n), rows(m), None, "images", alone=real_within)
