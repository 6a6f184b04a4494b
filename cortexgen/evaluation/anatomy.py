"""How far the anatomy of a set is from the real one: volumes, cortex, sides, place, contrast."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.comparison import Better, Comparison, Protocol, Row
from cortexgen.metrics.anatomy import adjusted_effects, effect_sizes, tissue_volumes, wasabi, wasserstein_index
from cortexgen.metrics.cortex import Cortex
from cortexgen.metrics.effects import Estimate, cohens_d, sd_ratio
from cortexgen.report import tables
from cortexgen.report.tables import Column

SMALL = 0.2  # |d| below it is called small
EVERYTHING = (-math.inf, math.inf)
BOUNDS = {"mean_d": (0.0, math.inf), "small_d": (0.0, 1.0), "spread": (0.0, math.inf), "position": (0.0, math.inf)}
IMAGE = ("contrast", "sharpness", "noise")
CORTICAL = {"thickness": "Cortical thickness", "pial_area": "Pial area", "folding": "Folding index"}

REGION_COLUMNS = (
    Column("set", "Set"),
    Column("region", "Region"),
    Column("real_mean", "Real mean", "ml"),
    Column("real_sd", "Real SD", "ml"),
    Column("mean", "Mean", "ml"),
    Column("sd", "SD", "ml"),
    Column("d", "d, ICV-adjusted [95 % CI]", better=0.0, format="+.2f"),
    Column("d_paper", "d (paper: real − synthetic)", better=0.0, format="+.2f"),
    Column("sd_ratio", "SD ratio [95 % CI]", better=1.0, format=".2f"),
    Column("wasserstein", "Wasserstein index", "SD", better="lower", format=".2f"),
)


def _packed(a: Anatomy) -> Tensor:
    """Columns: ICV, volumes, asymmetry, centroid, cortex, image."""
    return torch.cat([a.icv[:, None], a.volumes, a.asymmetry, a.centroid, a.cortex, a.image], dim=1)


def _d(a: Tensor, b: Tensor) -> Tensor:
    return cohens_d(a, b).value


def anatomy_comparisons(real: Anatomy, synthetic: Anatomy, source: str) -> list[Comparison]:
    """The numbers that say how far two anatomies are apart.

    Arguments:
        source: where the labels come from.
    """
    k, p = len(real.regions), len(real.pairs)
    a, b = _packed(real), _packed(synthetic)
    volumes, sides = slice(1, 1 + k), slice(1 + k, 1 + k + p)
    centroid, cortex = slice(1 + k + p, 4 + k + p), 4 + k + p

    def effects(x: Tensor, y: Tensor, protocol: Protocol) -> Tensor:
        return adjusted_effects(x[:, volumes], y[:, volumes], x[:, 0], y[:, 0], protocol).abs()

    def mean_effect(protocol: Protocol) -> Callable[[Tensor, Tensor], float]:
        return lambda x, y: float(effects(x, y, protocol).nanmean())

    def small(protocol: Protocol) -> Callable[[Tensor, Tensor], float]:
        return lambda x, y: float((effects(x, y, protocol) < SMALL).double().mean())

    def index(x: Tensor, y: Tensor) -> float:
        return float(wasserstein_index(x[:, volumes] / x[:, :1], y[:, volumes] / y[:, :1]).nanmean())

    def transport(x: Tensor, y: Tensor) -> float:
        n = min(len(x), len(y))
        return wasabi(x[:n, volumes] / x[:n, :1], y[:n, volumes] / y[:n, :1])

    def spread(x: Tensor, y: Tensor) -> float:
        ratio = sd_ratio(x[:, volumes].clamp(min=1e-6).log(), y[:, volumes].clamp(min=1e-6).log()).value
        return float(ratio[ratio > 0].log().abs().nanmean())

    def asymmetry(x: Tensor, y: Tensor) -> float:
        return float(_d(x[:, sides], y[:, sides]).abs().nanmean())

    def position(x: Tensor, y: Tensor) -> float:
        return float((x[:, centroid].mean(dim=0) - y[:, centroid].mean(dim=0)).norm())

    def column(i: int) -> Callable[[Tensor, Tensor], float]:
        return lambda x, y: float(_d(x[:, i : i + 1], y[:, i : i + 1]))

    def ratio(i: int) -> Callable[[Tensor, Tensor], float]:
        return lambda x, y: float(y[:, i].mean() / x[:, i].mean())

    standard: list[tuple[str, str, Callable[[Tensor, Tensor], float], Better]] = [
        ("mean_d", "Mean |d| of regional volumes, ICV-adjusted", mean_effect("standard"), "lower"),
        ("small_d", f"Share of regions with |d| < {SMALL}", small("standard"), "higher"),
        ("wasserstein", "Wasserstein index of volumes / ICV [SD]", index, "lower"),
        ("spread", "Mean |log SD ratio| of log volumes", spread, "lower"),
        ("icv_d", "d of intracranial volume", column(0), 0.0),
    ]
    for tissue, (x, y) in _tissues(real, synthetic).items():
        a, b = torch.cat([a, x[:, None]], dim=1), torch.cat([b, y[:, None]], dim=1)
        standard.append((f"{tissue.lower()}_d", f"d of {tissue} volume", column(a.shape[1] - 1), 0.0))
    if not real.cortex.isnan().any() and not synthetic.cortex.isnan().any():
        for name, title in CORTICAL.items():
            standard.append((f"{name}_d", f"d of {title.lower()}", column(cortex + Cortex._fields.index(name)), 0.0))
    standard += [
        ("asymmetry", "Mean |d| of left-right asymmetry", asymmetry, "lower"),
        ("position", "Offset of the mean centroid [mm]", position, "lower"),
    ]
    for i, name in enumerate(IMAGE):
        if not real.image[:, i].isnan().any() and not synthetic.image[:, i].isnan().any():
            standard.append((name, f"{name.capitalize()}, ratio of means", ratio(cortex + 6 + i), 1.0))
    paper: list[tuple[str, str, Callable[[Tensor, Tensor], float], Better]] = [
        ("mean_d", "Mean |d| of regional volumes, ICV-adjusted", mean_effect("paper"), "lower"),
        ("small_d", f"Share of regions with |d| < {SMALL}", small("paper"), "higher"),
        ("wasabi", "WASABI [1e-4]", transport, "lower"),
    ]
    both: list[tuple[Protocol, list[tuple[str, str, Callable[[Tensor, Tensor], float], Better]]]]
    both = [("standard", standard), ("paper", paper)]
    return [
        Comparison(name, title, protocol, statistic, a, b, better, source, BOUNDS.get(name, EVERYTHING))
        for protocol, entries in both
        for name, title, statistic, better in entries
    ]


def _tissues(real: Anatomy, synthetic: Anatomy) -> dict[str, tuple[Tensor, Tensor]]:
    both = tissue_volumes(real.volumes, real.regions), tissue_volumes(synthetic.volumes, synthetic.regions)
    return {name: (values, both[1][name]) for name, values in both[0].items()}


def region_rows(real: Anatomy, synthetic: Anatomy, resamples: int, seed: int = 0) -> list[Row]:
    """A row a region: means, SDs, effect sizes of both protocols, SD ratio and Wasserstein index.

    Raises:
        UserError: if there are fewer than three brains of a kind.
    """
    x, y = real.volumes, synthetic.volumes
    standard = effect_sizes(x, y, real.icv, synthetic.icv, "standard", resamples, seed)
    paper = adjusted_effects(x, y, real.icv, synthetic.icv, "paper")
    ratio = sd_ratio(x, y)
    distance = wasserstein_index(x / real.icv[:, None], y / synthetic.icv[:, None])

    def entry(estimate: Estimate, k: int) -> tables.Estimate:
        return tables.Estimate(*(float(values[k]) for values in estimate))

    return [
        {
            "region": region,
            "real_mean": float(x[:, k].mean()),
            "real_sd": float(x[:, k].std()),
            "mean": float(y[:, k].mean()),
            "sd": float(y[:, k].std()),
            "d": entry(standard, k),
            "d_paper": float(paper[k]),
            "sd_ratio": entry(ratio, k),
            "wasserstein": float(distance[k]),
        }
        for k, region in enumerate(real.regions)
    ]


def growth_comparisons(real: Tensor, synthetic: Tensor, brain: Tensor) -> list[Comparison]:
    """How far log |J| of the registrations is apart, voxel by voxel of the template: means, and spread.

    Arguments:
        real, synthetic: `[N, 1, d, h, w]` and `[M, 1, d, h, w]`.
        brain: of the template, `[1, d, h, w]` bool; every fourth of its voxels is taken.
    """
    a, b = (maps[:, brain][:, ::4] for maps in (real, synthetic))

    def shift(x: Tensor, y: Tensor) -> float:
        return float(_d(x, y).abs().nanmedian())

    def spread(x: Tensor, y: Tensor) -> float:
        return float((y.std(dim=0) / x.std(dim=0)).nanmedian())

    source = "registered fields"
    return [
        Comparison("growth_d", "Median |d| of voxels' log |J|", "standard", shift, a, b, "lower", source),
        Comparison("growth_sd", "Median SD ratio of voxels' log |J|", "standard", spread, a, b, 1.0, source),
    ]
