"""How far the anatomy of a set is from the real one: volumes, cortex, sides, place, contrast."""

import math

import torch
from torch import Tensor

from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.comparison import Better, Comparison, Protocol, Row, Statistic
from cortexgen.evaluation.table import Column
from cortexgen.metrics.anatomy import adjusted_effects, effect_sizes, tissue_volumes, wasabi, wasserstein_index
from cortexgen.metrics.cortex import Cortex
from cortexgen.metrics.effects import Estimate, cohens_d, sd_ratio
from cortexgen.metrics.resampling import Interval

SMALL = 0.2  # |d| below it is called small
LEAST = 1e-3  # of a volume in ml, and of a ratio, whose logarithm is taken
EVERYTHING = (-math.inf, math.inf)
BOUNDS = {
    "mean_d": (0.0, math.inf),
    "mean_raw_d": (0.0, math.inf),
    "small_d": (0.0, 1.0),
    "spread": (0.0, math.inf),
    "position": (0.0, math.inf),
}
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
    Column("d_raw", "d, not adjusted", better=0.0, format="+.2f"),
    Column("d_paper", "d (paper: real − synthetic)", better=0.0, format="+.2f"),
    Column("sd_ratio", "SD ratio [95 % CI]", better=1.0, format=".2f"),
    Column("wasserstein", "Wasserstein index", "SD", better="lower", format=".2f"),
)


def _packed(a: Anatomy) -> Tensor:
    """Columns: ICV, centroid, cortex, image, volumes, asymmetry, tissues."""
    tissues = tissue_volumes(a.volumes, a.regions).values()
    whole = [a.icv[:, None], a.centroid, a.cortex, a.image]
    return torch.cat([*whole, a.volumes, a.asymmetry, *(values[:, None] for values in tissues)], dim=1)


def _d(a: Tensor, b: Tensor) -> Tensor:
    return cohens_d(a, b).value


def _known(x: Tensor, column: int) -> Tensor:
    """A column without the brains that lack it, `[n, 1]`."""
    return x[~x[:, column].isnan(), column : column + 1]


def anatomy_comparisons(real: Anatomy, synthetic: Anatomy, source: str) -> list[Comparison]:
    """The numbers that say how far two anatomies are apart.

    Arguments:
        source: where the labels come from.
    """
    a, b = _packed(real), _packed(synthetic)
    centroid, cortex, image = slice(1, 4), 4, 4 + len(Cortex._fields)
    first = image + len(IMAGE)
    volumes = slice(first, first + len(real.regions))
    sides = slice(volumes.stop, volumes.stop + len(real.pairs))
    found: list[Comparison] = []

    def add(
        name: str, title: str, statistic: Statistic, better: Better = "lower", protocol: Protocol = "standard"
    ) -> None:
        bounds = BOUNDS.get(name, EVERYTHING)
        found.append(Comparison(name, title, protocol, statistic, a, b, better, source, bounds))

    def effects(x: Tensor, y: Tensor, protocol: Protocol) -> Tensor:
        return adjusted_effects(x[:, volumes], y[:, volumes], x[:, 0], y[:, 0], protocol).abs()

    def effect_pair(protocol: Protocol) -> None:
        title = "Mean |d| of regional volumes, ICV-adjusted"
        add("mean_d", title, lambda x, y: float(effects(x, y, protocol).nanmean()), "lower", protocol)
        title = f"Share of regions with |d| < {SMALL}"
        add("small_d", title, lambda x, y: float((effects(x, y, protocol) < SMALL).double().mean()), "higher", protocol)

    def index(x: Tensor, y: Tensor) -> float:
        return float(wasserstein_index(x[:, volumes] / x[:, :1], y[:, volumes] / y[:, :1]).nanmean())

    def transport(x: Tensor, y: Tensor) -> float:
        n = min(len(x), len(y))
        return wasabi(x[:n, volumes] / x[:n, :1], y[:n, volumes] / y[:n, :1])

    def spread(x: Tensor, y: Tensor) -> float:
        ratio = sd_ratio(x[:, volumes].clamp(min=LEAST).log(), y[:, volumes].clamp(min=LEAST).log()).value
        return float(ratio.clamp(min=LEAST).log().abs().nanmean())

    def effect(column: int) -> Statistic:
        return lambda x, y: float(_d(_known(x, column), _known(y, column)))

    def ratio(column: int) -> Statistic:
        return lambda x, y: float(_known(y, column).mean() / _known(x, column).mean())

    def measured(column: int) -> bool:
        return min(len(_known(a, column)), len(_known(b, column))) > 1

    effect_pair("standard")
    title = "Mean |d| of regional volumes, as they are"
    add("mean_raw_d", title, lambda x, y: float(_d(x[:, volumes], y[:, volumes]).abs().nanmean()))
    add("wasserstein", "Wasserstein index of volumes / ICV [SD]", index)
    add("spread", "Mean |log SD ratio| of log volumes", spread)
    add("icv_d", "d of intracranial volume", effect(0), 0.0)
    for k, tissue in enumerate(tissue_volumes(real.volumes, real.regions), start=sides.stop):
        add(f"{tissue.lower()}_d", f"d of {tissue} volume", effect(k), 0.0)
    for name, title in CORTICAL.items():
        if measured(k := cortex + Cortex._fields.index(name)):
            add(f"{name}_d", f"d of {title.lower()}", effect(k), 0.0)
    title = "Mean |d| of left-right asymmetry"
    add("asymmetry", title, lambda x, y: float(_d(x[:, sides], y[:, sides]).abs().nanmean()))
    title = "Offset of the mean centroid [mm]"
    add("position", title, lambda x, y: float((x[:, centroid].mean(dim=0) - y[:, centroid].mean(dim=0)).norm()))
    for k, name in enumerate(IMAGE, start=image):
        if measured(k):
            add(name, f"{name.capitalize()}, ratio of means", ratio(k), 1.0)
    effect_pair("paper")
    add("wasabi", "WASABI [1e-4]", transport, "lower", "paper")
    return found


def region_rows(real: Anatomy, synthetic: Anatomy, resamples: int, seed: int = 0) -> list[Row]:
    """A row a region: means, SDs, effect sizes of both protocols, SD ratio and Wasserstein index.

    Raises:
        UserError: if there are fewer than three brains of a kind.
    """
    x, y = real.volumes, synthetic.volumes
    standard = effect_sizes(x, y, real.icv, synthetic.icv, "standard", resamples, seed)
    paper = adjusted_effects(x, y, real.icv, synthetic.icv, "paper")
    raw = _d(x, y)
    ratio = sd_ratio(x, y)
    distance = wasserstein_index(x / real.icv[:, None], y / synthetic.icv[:, None])

    def entry(estimate: Estimate, k: int) -> Interval:
        return Interval(*(float(values[k]) for values in estimate))

    return [
        {
            "region": region,
            "real_mean": float(x[:, k].mean()),
            "real_sd": float(x[:, k].std()),
            "mean": float(y[:, k].mean()),
            "sd": float(y[:, k].std()),
            "d": entry(standard, k),
            "d_raw": float(raw[k]),
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
