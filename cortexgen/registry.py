"""What is found by its name: what is built in, and what other packages bring through entry points.

A package adds one by an entry point of the group `cortexgen.<kind>`, in its pyproject.toml:

    [project.entry-points."cortexgen.steps"]
    Gamma = "their_package.gamma:Gamma"
"""

import inspect
import warnings
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cortexgen.errors import UserError, reason

# Imported when they are asked for.
BUILT_IN: dict[str, dict[str, str]] = {
    "steps": {
        "StripSkull": "cortexgen.preprocess.steps.skull:StripSkull",
        "Denoise": "cortexgen.preprocess.steps.denoise:Denoise",
        "CorrectBias": "cortexgen.preprocess.steps.bias:CorrectBias",
        "Align": "cortexgen.preprocess.steps.align:Align",
        "Resample": "cortexgen.preprocess.steps.grids:Resample",
        "Crop": "cortexgen.preprocess.steps.grids:Crop",
        "Normalize": "cortexgen.preprocess.steps.intensity:Normalize",
    },
    "studies": {
        "bids": "cortexgen.studies.bids:BIDS",
        "adni": "cortexgen.studies.adni:ADNI",
        "ncanda": "cortexgen.studies.ncanda:NCANDA",
        "folder": "cortexgen.studies.folder:FOLDER",
    },
    "metrics": {  # a metric, or several of one subject
        "anatomy": "cortexgen.evaluation.anatomy:METRICS",
        "texture": "cortexgen.evaluation.texture:METRICS",
        "features": "cortexgen.evaluation.distribution:METRICS",
        "images": "cortexgen.evaluation.images:METRICS",
    },
    "generators": {
        "fields": "cortexgen.weights.models:fields",
        "deformation-model": "cortexgen.weights.models:deformation_model",
        "images": "cortexgen.weights.models:images",
    },
    "registrations": {
        "network": "cortexgen.weights.models:network",
        "affine": "cortexgen.registration.affine:AffineOnly",
        "greedy": "cortexgen.registration.greedy:Greedy",
        "syn": "cortexgen.registration.syn:SyN",
        "pirate": "cortexgen.weights.models:pirate",
        "pirate+": "cortexgen.weights.models:pirate_plus",
        "prior": "cortexgen.weights.models:prior",
    },
    "labellers": {
        "register": "cortexgen.evaluation.labelling:RegisteredLabels",
        "given": "cortexgen.evaluation.labelling:GivenLabels",
    },
}


def names(kind: str) -> list[str]:
    """What there is of a kind: "steps", "studies", "metrics", "generators", "registrations" or "labellers".

    What is built in comes first, in its order, then what other packages bring, by name.
    """
    return list(_points(kind))


def find(kind: str, name: str) -> Any:
    """One of a kind.

    Raises:
        UserError: if there is none of this name, several packages have one, or its package can't be imported.
    """
    points = _points(kind)
    if name not in points:
        raise UserError(f"{kind}: there is no {name!r}; there are {', '.join(points) or 'none'}")
    return _load(kind, points[name])


def made(kind: str, name: str, options: Mapping[str, Any], aside: Collection[str] = ()) -> Any:
    """One of a kind, made with the options that it takes.

    Arguments:
        options: None stands for an option that wasn't given.
        aside: what may be left out where it isn't taken: what the caller knows anyway, and values by default.

    Raises:
        UserError: as `find`; or if an option was given that it doesn't take.
    """
    make = find(kind, name)
    if not callable(make):
        raise UserError(f"{kind}: {name!r} is no class or function, but {type(make).__name__}")
    taken = inspect.signature(make).parameters
    needs = [p.name for p in taken.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if lacking := [option for option in needs if options.get(option) is None]:
        raise UserError(f"{name}: needs {' and '.join(lacking)}")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return make(**{option: value for option, value in options.items() if value is not None})
    refused = [option for option, value in options.items() if value is not None and option not in {*taken, *aside}]
    if refused:
        raise UserError(f"{name}: takes no {' and no '.join(refused)}; there are {', '.join(taken)}")
    return make(**{option: value for option, value in options.items() if option in taken and value is not None})


def everything(kind: str) -> dict[str, Any]:
    """All of a kind, by name; what another package brings that can't be had is left out with a warning."""
    found = {}
    for name, points in _points(kind).items():
        try:
            found[name] = _load(kind, points)
        except UserError as error:
            warnings.warn(str(error), stacklevel=2)
    return found


def _points(kind: str) -> dict[str, list[EntryPoint]]:
    group = f"cortexgen.{kind}"
    found = {name: [EntryPoint(name, place, group)] for name, place in BUILT_IN[kind].items()}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        found.setdefault(point.name, []).append(point)
    return found


def _load(kind: str, points: list[EntryPoint]) -> Any:
    name, packages = points[0].name, [point.dist.name if point.dist else "cortexgen" for point in points]
    if len(points) > 1 and points[0].dist is None:
        warnings.warn(
            f"{kind}: {name!r} is cortexgen's own, and not that of {' and '.join(packages[1:])}", stacklevel=3
        )
    elif len(points) > 1:
        raise UserError(f"{kind}: {name!r} comes from the packages {' and '.join(packages)}; keep one of them")
    try:
        return points[0].load()
    except Exception as error:
        if points[0].dist is None:
            raise
        raise UserError(f"{kind}: {name!r} of the package {packages[0]} can't be imported ({reason(error)})") from error
