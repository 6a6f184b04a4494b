"""Distances between the distributions of two sets, from features of their images and from the images themselves."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import POSITIVE, SHARE, Metric, Protocol
from cortexgen.evaluation.frame import Frame
from cortexgen.evaluation.store import Store, Volumes
from cortexgen.evaluation.trained import RegionFeatures
from cortexgen.metrics.classifier import FOLDS, area_under_curve, balanced_accuracy, decisions
from cortexgen.metrics.coverage import precision_and_coverage
from cortexgen.metrics.features import extract_features, paper_input, published_real_rows, standard_input
from cortexgen.metrics.frechet import frechet_distance
from cortexgen.metrics.medicalnet import MedicalNet, load_medicalnet
from cortexgen.metrics.mmd import mmd2, published_feature_mmd
from cortexgen.metrics.random_features import RandomFeatures

Network = MedicalNet | RandomFeatures | RegionFeatures
Prepare = Callable[[Tensor], Tensor]
NEIGHBOURS = 5
REMEMBERED = 2000  # decisions of classifiers
_decisions: dict[bytes, tuple[Tensor, Tensor]] = {}


def load_extractors(
    paths: Sequence[Path], random_features: bool = True, trained_features: Path | str | None = None
) -> list[Network]:
    """MedicalNet from published checkpoint files, or from the folders that hold them, random features, and ours.

    Arguments:
        trained_features: weights of a `FeatureModule`, a file or a name of the package's; none unless given.

    Raises:
        UserError: if a file is missing, has the wrong hash, or a folder has no checkpoint.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        found = sorted(path.glob("resnet_*.pth")) if path.is_dir() else [path]
        if not found:
            raise UserError(f"--medicalnet {path}: no resnet_*.pth in this folder")
        files += found
    ours = [] if trained_features is None else [RegionFeatures(trained_features)]
    return [*ours, *map(load_medicalnet, files), *([RandomFeatures()] if random_features else [])]


def paper_volumes(store: Store, view: Frame) -> Volumes:
    """What the published evaluation takes, [-1, 1] brought to [0, 1]: `as_published` undoes it."""
    return store.prepared("paper", view.key, partial(_unit_paper_input, view))


def _unit_paper_input(view: Frame, image: Tensor) -> Tensor:
    return (paper_input(image, view.mask) + 1) / 2


def as_published(store: Store, view: Frame) -> Volumes:
    """What the published evaluation takes, in [-1, 1]."""
    return Volumes(len(store), partial(_signed, paper_volumes(store, view)))


def _signed(volumes: Volumes, i: int) -> Tensor:
    return volumes[i] * 2 - 1


def features(store: Store, network: Network, protocol: Protocol, view: Frame, device: str) -> Tensor:
    """Features of every brain of a set in a protocol's input, `[N, F]`, kept on disk.

    Random features see the image itself in the standard protocol, MedicalNet a standardized one, ours the image in
    template space, whatever the protocol.

    Raises:
        UserError: if no brain has any.
    """
    if isinstance(network, RegionFeatures):
        return _stacked(store, network.measure(store, view, device))
    trained = isinstance(network, MedicalNet)
    box, source, prepare = "", store.images(), standard_input if trained else None
    if protocol == "paper":
        box, source, prepare = view.key, (as_published if trained else paper_volumes)(store, view), None
    key = f"{network.sha256} {protocol} {box}"
    kind = f"{network.name}-{protocol}"
    found = store.measure(kind, key, partial(_features, network, device, source, prepare))
    return _stacked(store, found)


def _stacked(store: Store, found: Mapping[int, Mapping[str, Any]]) -> Tensor:
    if not found:
        raise UserError(next(iter(store.brains.problems.values()), "there are no brains"))
    return torch.stack([torch.from_numpy(found[i]["features"]) for i in sorted(found)])


def _features(
    network: MedicalNet | RandomFeatures, device: str, source: Volumes, prepare: Prepare | None, i: int
) -> dict[str, Any]:
    return {"features": extract_features(network.to(device), [source[i]], prepare)[0]}


def of_network(metric: Metric, network: Network) -> Metric:
    """A metric of features, named after the network whose features it is given."""
    name = network.name.replace("resnet_", "resnet").replace("_23dataset", "_23")
    key = {RandomFeatures: "random", RegionFeatures: "region"}.get(type(network), name)
    title = metric.title.replace("FID", network.distance[:1].upper() + network.distance[1:])
    return replace(metric, name=f"{metric.name}_{key}", title=title + f" ({key})" * (key != "random"))


def _published_mmd(x: Tensor, y: Tensor) -> float:
    """The published MMD pairs rows, of which it takes as many as both have, the real ones doubled."""
    n = min(len(x), len(y))
    return published_feature_mmd(published_real_rows(x[:n]), y[:n])


def _decided(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`decisions`, once for accuracy and area under the curve, whose bootstraps have the same rows."""
    key = hashlib.blake2b(b"%d " % len(x) + x.numpy().tobytes() + y.numpy().tobytes()).digest()
    if key not in _decisions:
        if len(_decisions) == REMEMBERED:
            _decisions.clear()
        _decisions[key] = decisions(x, y)
    return _decisions[key]


def _accuracy(x: Tensor, y: Tensor) -> float:
    return balanced_accuracy(*_decided(x, y))


def _area(x: Tensor, y: Tensor) -> float:
    return area_under_curve(*_decided(x, y))


def _coverage(x: Tensor, y: Tensor, which: str) -> float:
    k = min(NEIGHBOURS, len(x) - 1)
    return float(getattr(precision_and_coverage(torch.cdist(x, y), torch.cdist(x, x), k), which))


_density, _covered = (partial(_coverage, which=which) for which in ("density", "coverage"))
METRICS = (
    Metric("fid", "FID", "features", frechet_distance),
    Metric("mmd", "Feature MMD²", "features", mmd2),
    Metric("density", "Density", "features", _density, better=1.0, bounds=POSITIVE, least=NEIGHBOURS + 1, heading=None),
    Metric("coverage", "Coverage", "features", _covered, better="higher", bounds=SHARE, least=NEIGHBOURS + 1),
    Metric("told_apart", "Told apart", "features", _accuracy, better=0.5, bounds=SHARE, least=2 * FOLDS),
    Metric("auc", "Told apart, AUC", "features", _area, better=0.5, bounds=SHARE, least=2 * FOLDS),
    Metric("fid", "FID", "features", lambda x, y: frechet_distance(published_real_rows(x), y), protocol="paper"),
    Metric("mmd", "Feature MMD, linear, pairs", "features", _published_mmd, protocol="paper"),
)
