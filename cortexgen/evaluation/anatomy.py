"""How far the anatomy of a set is from the real one: volumes, cortex, sides, place, contrast, growth."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortexgen.evaluation.brain import Anatomy
from cortexgen.evaluation.comparison import POSITIVE, SHARE, Better, Metric, Protocol, Row, Statistic
from cortexgen.evaluation.table import Column
from cortexgen.metrics.anatomy import TISSUES, adjusted_effects, effect_sizes, tissue_volumes, wasabi, wasserstein_index
from cortexgen.metrics.cortex import Cortex
from cortexgen.metrics.effects import cohens_d, sd_ratio
from cortexgen.metrics.resampling import Interval

SMALL = 0.2  # |d| below it is called small
LEAST = 1e-3  # of a volume in ml, and of a ratio, whose logarithm is taken
GROWTH = "log |J| SD ratio"

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


def _volumes(a: Anatomy) -> Tensor:
    """ICV, then each region."""
    return torch.cat([a.icv[:, None], a.volumes], dim=1)


def _regions(a: Anatomy) -> Tensor:
    return a.volumes


def _tissue(a: Anatomy, tissue: str) -> Tensor | None:
    found = tissue_volumes(a.volumes, a.regions).get(tissue)
    return None if found is None else found[:, None]


def _cortical(name: str) -> Callable[[Anatomy], Tensor]:
    column = Cortex._fields.index(name)
    return lambda a: a.cortex[:, column : column + 1]


def _d(x: Tensor, y: Tensor) -> Tensor:
    return cohens_d(x, y).value


def _known(x: Tensor) -> Tensor:
    """A column without the brains that lack it."""
    return x[~x[:, 0].isnan()]


def _effect(x: Tensor, y: Tensor) -> float:
    return float(_d(_known(x), _known(y)))


def _ratio(x: Tensor, y: Tensor) -> float:
    return float(_known(y).mean() / _known(x).mean())


def _mean_effect(x: Tensor, y: Tensor) -> float:
    return float(_d(x, y).abs().nanmean())


def _adjusted(x: Tensor, y: Tensor, protocol: Protocol) -> Tensor:
    return adjusted_effects(x[:, 1:], y[:, 1:], x[:, 0], y[:, 0], protocol).abs()


def _mean_d(x: Tensor, y: Tensor, protocol: Protocol) -> float:
    return float(_adjusted(x, y, protocol).nanmean())


def _small_d(x: Tensor, y: Tensor, protocol: Protocol) -> float:
    return float((_adjusted(x, y, protocol) < SMALL).double().mean())


def _index(x: Tensor, y: Tensor) -> float:
    return float(wasserstein_index(x[:, 1:] / x[:, :1], y[:, 1:] / y[:, :1]).nanmean())


def _transport(x: Tensor, y: Tensor) -> float:
    n = min(len(x), len(y))
    return wasabi(x[:n, 1:] / x[:n, :1], y[:n, 1:] / y[:n, :1])


def _spread(x: Tensor, y: Tensor) -> float:
    ratio = sd_ratio(x[:, 1:].clamp(min=LEAST).log(), y[:, 1:].clamp(min=LEAST).log()).value
    return float(ratio.clamp(min=LEAST).log().abs().nanmean())


def _offset(x: Tensor, y: Tensor) -> float:
    return float((x.mean(dim=0) - y.mean(dim=0)).norm())


def _shift(x: Tensor, y: Tensor) -> float:
    return float(_d(x, y).abs().nanmedian())


def _spreads(x: Tensor, y: Tensor) -> float:
    return float((y.std(dim=0) / x.std(dim=0)).nanmedian())


def _of(
    name: str,
    title: str,
    heading: str | None,
    statistic: Statistic,
    rows: Callable[[Anatomy], Tensor | None] = _volumes,
    better: Better = "lower",
    **more: Any,
) -> Metric:
    return Metric(name, title, "anatomy", statistic, rows, better, heading=heading, **more)


def _adjusted_metrics(protocol: Protocol) -> tuple[Metric, Metric]:
    mean, small = (partial(statistic, protocol=protocol) for statistic in (_mean_d, _small_d))
    title, small_title = "Mean |d| of regional volumes, ICV-adjusted", f"Share of regions with |d| < {SMALL}"
    more: dict[str, Any] = {"protocol": protocol, "card": "mean |d|"}
    return (
        _of("mean_d", title, "Mean |d|, ICV-adjusted", mean, bounds=POSITIVE, **more),
        _of("small_d", small_title, f"|d| < {SMALL}", small, better="higher", bounds=SHARE, protocol=protocol),
    )


METRICS = (
    *_adjusted_metrics("standard"),
    _of("mean_raw_d", "Mean |d| of regional volumes, as they are", "Mean |d|", _mean_effect, _regions, bounds=POSITIVE),
    _of("wasserstein", "Wasserstein index of volumes / ICV [SD]", "Wasserstein index", _index),
    _of("spread", "Mean |log SD ratio| of log volumes", "|log SD ratio|", _spread, bounds=POSITIVE),
    _of("icv_d", "d of intracranial volume", None, _effect, lambda a: a.icv[:, None], 0.0),
    *(
        _of(f"{name.lower()}_d", f"d of {name} volume", None, _effect, partial(_tissue, tissue=name), 0.0)
        for name in TISSUES
    ),
    _of("thickness_d", "d of cortical thickness", "Thickness d", _effect, _cortical("thickness"), 0.0),
    _of("pial_area_d", "d of pial area", None, _effect, _cortical("pial_area"), 0.0),
    _of("folding_d", "d of folding index", "Folding d", _effect, _cortical("folding"), 0.0),
    _of("asymmetry", "Mean |d| of left-right asymmetry", "Asymmetry |d|", _mean_effect, lambda a: a.asymmetry),
    _of("position", "Offset of the mean centroid [mm]", "Offset [mm]", _offset, lambda a: a.centroid, bounds=POSITIVE),
    _of("contrast", "Contrast, ratio of means", "Contrast", _ratio, lambda a: a.image[:, :1], 1.0),
    _of("sharpness", "Sharpness, ratio of means", "Sharpness", _ratio, lambda a: a.image[:, 1:2], 1.0),
    _of("noise", "Noise, ratio of means", "Noise", _ratio, lambda a: a.image[:, 2:], 1.0),
    *_adjusted_metrics("paper"),
    _of("wasabi", "WASABI [1e-4]", None, _transport, protocol="paper"),
    Metric("growth_d", "Median |d| of voxels' log |J|", "growth", _shift, heading="log |J| |d|"),
    Metric(
        "growth_sd", "Median SD ratio of voxels' log |J|", "growth", _spreads, better=1.0, heading=GROWTH, card=GROWTH
    ),
)


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
    return [
        {
            "region": region,
            "real_mean": float(x[:, k].mean()),
            "real_sd": float(x[:, k].std()),
            "mean": float(y[:, k].mean()),
            "sd": float(y[:, k].std()),
            "d": Interval(*(float(values[k]) for values in standard)),
            "d_raw": float(raw[k]),
            "d_paper": float(paper[k]),
            "sd_ratio": Interval(*(float(values[k]) for values in ratio)),
            "wasserstein": float(distance[k]),
        }
        for k, region in enumerate(real.regions)
    ]
