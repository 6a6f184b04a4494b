"""Trained weights as registrations and generators, found by name."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cortexgen.atlas.template import Template, load_template
from cortexgen.contracts import Registration
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Appearance, UnfitAppearance
from cortexgen.generation.deformation_model import components
from cortexgen.generation.donors import DonorAppearance
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.generation.learned import LearnedAppearance
from cortexgen.registration.registrar import Registrar
from cortexgen.runner.precision import Precision, choose_device
from cortexgen.weights.reading import load_appearance, load_generator, load_registration


def network(
    checkpoint: Path | None = None, refine: int = 6, refine_intensity: float = 0.0, mirror: bool | None = False
) -> Registration:
    """Stage 1; options are those of `cortexgen register`, and None mirrors where the weights' grid allows it.

    Raises:
        UserError: for other weights than stage 1's, or a grid that can't be mirrored.
    """
    module = load_registration(checkpoint)
    module.refine, module.refine_intensity, module.mirror = refine, refine_intensity, mirror is not False
    try:
        module.check_mirror()
    except UserError:
        if mirror:
            raise
        module.mirror = False
    return module


def fields(
    checkpoint: Path | None = None,
    device: str = "auto",
    appearance: str | None = None,
    style: Mapping[str, float] | None = None,
    appearance_steps: int | None = None,
    donors: Path | None = None,
    **options: Any,
) -> FieldGenerator:
    """Stage 2, the template that its fields warp, and stage 3; options are those of `cortexgen generate`.

    Raises:
        UserError: for other weights than these stages', or options that can't be met.
    """
    place = choose_device(device)
    velocities = load_generator(checkpoint).to(place).take(**options)
    return _dressed(velocities, (appearance, style, appearance_steps, donors), options.get("precision", "auto"))


def deformation_model(
    fields: Path,
    template: Template | None = None,
    appearance: str | None = None,
    style: Mapping[str, float] | None = None,
    appearance_steps: int | None = None,
    donors: Path | None = None,
    **options: Any,
) -> FieldGenerator:
    """Principal components of the registered fields in a folder in the place of stage 2; the rest as of `fields`."""
    velocities = components(fields, template, **options)
    return _dressed(velocities, (appearance, style, appearance_steps, donors), options.get("precision", "auto"))


Looks = tuple[str | None, Mapping[str, float] | None, int | None, Path | None]


def _dressed(velocities: Any, asked: Looks, precision: Precision) -> FieldGenerator:
    """A generator with the appearance asked for; the template's, with a warning, where the default one doesn't fit."""
    looks = _appearance(*asked, velocities.device, precision)
    try:
        return FieldGenerator(velocities, looks)
    except UnfitAppearance as error:
        if asked[0] is not None:
            raise
        warnings.warn(f"{error}; the brains get the warped template's own image", stacklevel=3)
        return FieldGenerator(velocities)


def _appearance(
    name: str | None,
    style: Mapping[str, float] | None,
    steps: int | None,
    donors: Path | None,
    device: torch.device,
    precision: Precision,
) -> Appearance | None:
    """Stage 3: the package's by default, or as "learned"; None for "template"; else a file or the name of others.

    Raises:
        UserError: for other weights, or options that can't be met.
    """
    if name == "donors" and donors is None:
        raise UserError("appearance: donors needs a cohort of them, donors")
    if name != "donors" and donors is not None:
        raise UserError("donors: only appearance donors takes them")
    given = [option for option, value in (("style", style), ("appearance_steps", steps)) if value is not None]
    if name in ("template", "donors") and given:
        raise UserError(f"{given[0]}: only a learned appearance takes it, not {name}")
    if name == "template":
        return None
    if donors is not None:
        return DonorAppearance(donors, Registrar(network(), load_template(), str(device), precision))
    module = load_appearance(None if name in (None, "learned") else name)
    return LearnedAppearance(module.to(device), style, steps, precision)
