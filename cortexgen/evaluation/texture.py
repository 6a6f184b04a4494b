"""How the images of a set look beside real ones: their frequencies, intensities of tissues, the grey-white edge.

Curves for the eye, and a number for each with floor and interval.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.errors import UserError
from cortexgen.evaluation.brain import named_classes
from cortexgen.evaluation.comparison import POSITIVE, SHARE, Metric, Row
from cortexgen.evaluation.labelling import measured_labels
from cortexgen.evaluation.store import Measures, Store
from cortexgen.evaluation.table import Column
from cortexgen.metrics.resampling import Interval
from cortexgen.metrics.spectrum import BANDS
from cortexgen.metrics.texture import (
    DEPTHS,
    LEVELS,
    SHOWN,
    edge_profile,
    gradient_energy,
    relative_power,
    tissue_histograms,
)

VERSION = 1  # raised when the same image gives something else
POWER, EDGE = "power", "edge"
COLUMNS = (
    Column("set", "Set"),
    Column("curve", "Curve"),
    Column("at", "At", format=".3g"),
    Column("unit", "Unit"),
    Column("real", "Real mean [95 % of brains]", format=".3g"),
    Column("mean", "Mean", format=".3g"),
    Column("z", "(Mean − real mean) / real SD", better=0.0, format="+.2f"),
)


@dataclass(frozen=True)
class Texture:
    """What the images of a set look like, a row a brain, float64; NaN where labels are missing.

    Attributes:
        power: of six bands of frequency, over the image's energy, `[N, 6]`.
        gradient: energy of the gradient over the image's, `[N, 1]`.
        histograms: shares of the voxels of white matter, cortex and ventricles by intensity, `[N, 3, 28]`.
        edge: intensity by the depth across the grey-white boundary, `[N, 9]`.
        nyquist: the frequency that the bands reach to, in 1/mm.
    """

    power: Tensor
    gradient: Tensor
    histograms: Tensor
    edge: Tensor
    nyquist: float

    def curves(self) -> Iterator[tuple[str, str, Tensor, Tensor]]:
        """Name, unit, places `[X]` and values `[N, X]` of each curve that was measured."""
        width = self.nyquist / BANDS
        found = [(POWER, "1/mm", (torch.arange(BANDS) + 0.5) * width, self.power)]
        levels, depths = (torch.from_numpy((bins[1:] + bins[:-1]) / 2) for bins in (LEVELS, DEPTHS))
        found += [(tissue, "of white matter", levels, self.histograms[:, k]) for k, tissue in enumerate(SHOWN)]
        found.append((EDGE, "mm", depths, self.edge))
        return ((name, unit, at, values) for name, unit, at, values in found if not values.isnan().all())


def measured_texture(
    store: Store, labelled: Collection[int] = (), key: str = "", classes: Mapping[int, str] | None = None
) -> Texture:
    """The texture of a set, kept on disk.

    Arguments:
        labelled: brains whose labels were measured.
        key: what these depend on.
        classes: names of the labels by number.

    Raises:
        UserError: if no brain could be measured.
    """
    bare = [i for i in range(len(store)) if i not in set(labelled)]
    found = store.measure("texture", f"{VERSION} {key}", partial(_measure, store, True, classes), only=[*labelled])
    found |= store.measure("texture", f"{VERSION} bare", partial(_measure, store, False, None), only=bare)
    if not found:
        raise UserError(next(iter(store.brains.problems.values()), "there are no brains"))
    return collect(found, 0.5 / max(store.grid.spacing))


def _measure(store: Store, labelled: bool, classes: Mapping[int, str] | None, i: int) -> Mapping[str, Any]:
    image, spacing = store.image(i), store.grid.spacing
    measures: dict[str, Any] = {
        "power": relative_power(image, spacing),
        "gradient": gradient_energy(image, image > BRAIN_FOREGROUND, spacing),
    }
    if not labelled:
        return measures
    _, indices, names = named_classes(measured_labels(store, i), classes)
    return measures | {
        "histograms": tissue_histograms(image, indices, names),
        "edge": edge_profile(image, indices, names, spacing),
    }


def collect(measured: Mapping[int, Measures], nyquist: float) -> Texture:
    """The texture of a set from that of each brain; NaN where one had no labels."""
    index = sorted(measured)
    none = {"histograms": torch.full((len(SHOWN), len(LEVELS) - 1), torch.nan).double()}
    none["edge"] = torch.full((len(DEPTHS) - 1,), torch.nan).double()

    def stacked(key: str) -> Tensor:
        found = [measured[i].get(key, none.get(key)) for i in index]
        return torch.stack([torch.as_tensor(row).double() for row in found])

    return Texture(stacked("power"), stacked("gradient")[:, None], stacked("histograms"), stacked("edge"), nyquist)


def _mean(rows: Tensor) -> Tensor:
    return rows.nanmean(dim=0)


def _octaves(x: Tensor, y: Tensor) -> float:
    return float((_mean(y) / _mean(x)).log2().abs().mean())


def _moved(x: Tensor, y: Tensor) -> float:
    """The share of voxels that would have to change their intensity, the mean over tissues."""
    shares = (_mean(x) - _mean(y)).abs().sum(dim=-1) / 2
    return float(shares.nanmean())


def _apart(x: Tensor, y: Tensor) -> float:
    return float((_mean(x) - _mean(y)).abs().nanmean())


def _ratio(x: Tensor, y: Tensor) -> float:
    return float(y.nanmean() / x.nanmean())


def _known(rows: Tensor) -> Tensor | None:
    return None if rows.isnan().all() else rows


def _of(name: str, title: str, statistic: Any, rows: Callable[[Texture], Tensor | None], **more: Any) -> Metric:
    return Metric(name, title, "texture", statistic, rows, **more)


METRICS = (
    _of("spectrum", "Spectrum, mean |log₂ power ratio|", _octaves, lambda t: _known(t.power), bounds=POSITIVE),
    _of("gradients", "Gradient energy, ratio of means", _ratio, lambda t: _known(t.gradient), better=1.0),
    _of("intensities", "Intensities of tissues, share moved", _moved, lambda t: _known(t.histograms), bounds=SHARE),
    _of("edge", "Grey-white edge, mean |difference|", _apart, lambda t: _known(t.edge), bounds=POSITIVE),
)


def curve_rows(real: Texture, synthetic: Texture) -> list[Row]:
    """A row a curve and place: mean and range of 95 % of the real brains, and the set's mean."""
    rows: list[Row] = []
    theirs = {name: values for name, _, _, values in synthetic.curves()}
    for name, unit, places, values in real.curves():
        if name not in theirs:
            continue
        ends = values.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
        means, spread = _mean(values), _spread(values)
        for k, at in enumerate(places.tolist()):
            mean = float(_mean(theirs[name])[k])
            known = means[k].isfinite() and mean == mean
            if known:
                real_mean = Interval(float(means[k]), float(ends[0, k]), float(ends[1, k]))
                z = (mean - real_mean.value) / float(spread[k]) if spread[k] > 0 else None
                rows.append({"curve": name, "at": at, "unit": unit, "real": real_mean, "mean": mean, "z": z})
    return rows


def _spread(rows: Tensor) -> Tensor:
    counts = (~rows.isnan()).sum(dim=0)
    squares = (rows - _mean(rows)).square().nansum(dim=0)
    return (squares / (counts - 1).clamp(min=1)).sqrt()


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by curve, in their order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["curve"]), []).append(row)
    return found
