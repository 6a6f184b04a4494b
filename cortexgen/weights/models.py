"""Trained weights as registrations and generators, found by name."""

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from cortexgen.atlas.template import Template, load_template
from cortexgen.contracts import Generator, Registration
from cortexgen.diffusion import alpha_sigma
from cortexgen.errors import UserError
from cortexgen.generation.appearance import Appearance, UnfitAppearance
from cortexgen.generation.cascade import CascadedAppearance
from cortexgen.generation.deformation_model import components
from cortexgen.generation.donors import DonorAppearance
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.generation.learned import LearnedAppearance
from cortexgen.io import Grid
from cortexgen.modules.baselines import PirateModule, PiratePlusModule
from cortexgen.registration.learned_prior import PriorRefined
from cortexgen.registration.refinement import Refinement
from cortexgen.registration.registrar import Registrar
from cortexgen.runner.precision import Precision, choose_device
from cortexgen.weights.catalogue import GENERATE
from cortexgen.weights.reading import load_appearance, load_generator, load_image_generator, load_registration


def network(
    checkpoint: Path | None = None, refine: int = 6, refine_intensity: float = 0.0, mirror: bool | None = False
) -> Registration:
    """Stage 1; options are those of `cortexgen register`, and None mirrors where the weights' grid allows it.

    Raises:
        UserError: for other weights than stage 1's, or a grid that can't be mirrored.
    """
    module = load_registration(checkpoint)
    if isinstance(module, PirateModule):
        raise UserError(f"{checkpoint}: weights of {module.stage}, which register by --method {module.method}")
    module.refine, module.refine_intensity, module.mirror = refine, refine_intensity, mirror is not False
    try:
        module.check_mirror()
    except UserError:
        if mirror:
            raise
        module.mirror = False
    return module


def prior(
    checkpoint: Path | None = None,
    fields: Path | None = None,
    refine: int = 20,
    mirror: bool | None = False,
    smoothness: float = 5.0,
    log_snr: float = 0.0,
    share: float = 0.5,
    weight: float = 0.0,
) -> Registration:
    """Stage 1, refined with stage 2's denoiser of fields.

    Arguments:
        checkpoint, refine, mirror: as of `network`.
        fields: stage 2's weights, the package's unless given.
        smoothness: weight of the squared gradient.
        log_snr: of the noise that the denoiser takes away.
        share: of a step that follows what people differ by.
        weight: of the denoiser's force.

    Raises:
        UserError: for other weights, or such whose grids or templates don't belong together.
    """
    if refine < 1:
        raise UserError(f"refine: prior takes 1 or more steps, got {refine}")
    first, generator = network(checkpoint, refine=0, mirror=mirror), load_generator(fields)
    ours, theirs = first.frame, generator.contract
    if theirs["template"]["hash"] != ours.template_hash or theirs["integration_steps"] != ours.steps:
        raise UserError(f"prior: {fields or GENERATE} is of another template or flow than the network's weights")
    h = cast(Any, first).hparams
    how = {"window": h.ncc_window, "foreground": h.foreground, "symmetric": h.symmetric, "squarings": ours.steps}
    options = {"refine": refine, "mirror": mirror, "smoothness": smoothness, "log_snr": log_snr}
    return PriorRefined(
        cast(nn.Module, first),
        generator,
        partial(_denoised, generator, log_snr),
        Grid.from_dict(theirs["grid"]),
        Refinement(refine, smoothness=smoothness, learned=weight, share=share, **how),
        options | {"share": share, "weight": weight},
    )


def _denoised(generator: Any, log_snr: float, velocity: Tensor) -> Tensor:
    """E[v | v + noise] of people without known covariates, of `[1, 3, d, h, w]` in voxels.

    The noise has the deviation `exp(-log_snr / 2)` of the scaled fields.
    """
    level = torch.full((1,), log_snr, dtype=torch.float64, device=velocity.device)
    z = alpha_sigma(level)[0] * generator.normalized(velocity)
    return generator.restored(generator.denoise(z, level, None))


def pirate(checkpoint: Path, **options: Any) -> Registration:
    """PIRATE by its denoiser's weights; options are its run-time options, `refine` being its iterations.

    Raises:
        UserError: for other weights, an option that there isn't, or a number of iterations below 1.
    """
    return _plug_and_play(PirateModule, checkpoint, options)


def pirate_plus(checkpoint: Path, **options: Any) -> Registration:
    """PIRATE+ by its denoiser's weights, likewise; iterations are evaluations at most.

    Raises:
        UserError: as `pirate`.
    """
    return _plug_and_play(PiratePlusModule, checkpoint, options)


def _plug_and_play(kind: type[PirateModule], checkpoint: Path, options: Mapping[str, Any]) -> Registration:
    module = load_registration(checkpoint)
    if type(module) is not kind:
        what = module.stage or type(module).__name__
        raise UserError(f"{checkpoint}: weights of {what}; --method {kind.method} needs those of {kind.stage}")
    for option, value in options.items():
        name = "iterations" if option == "refine" else option
        if name not in (*kind.run_options, "template"):
            raise UserError(f"{kind.method}: takes no {option}; there are checkpoint, {', '.join(kind.run_options)}")
        if name == "iterations" and value < 1:
            raise UserError(f"{option}: expected 1 or more, got {value}")
        if name != "template":
            setattr(module, name, value)
    return module


def fields(
    checkpoint: Path | None = None,
    device: str = "auto",
    **options: Any,
) -> FieldGenerator:
    """Stage 2, the template that its fields warp, and stage 3; options are those of `cortexgen generate`.

    Raises:
        UserError: for other weights than these stages', or options that can't be met.
    """
    place = choose_device(device)
    asked, options = Looks.of(options)
    return _dressed(load_generator(checkpoint).to(place).take(**options), asked, options.get("precision", "auto"))


def deformation_model(
    fields: Path,
    template: Template | None = None,
    **options: Any,
) -> FieldGenerator:
    """Principal components of the registered fields in a folder in the place of stage 2; the rest as of `fields`."""
    asked, options = Looks.of(options)
    return _dressed(components(fields, template, **options), asked, options.get("precision", "auto"))


def images(checkpoint: Path, device: str = "auto", **options: Any) -> Generator:
    """A baseline that draws images; options are those of `cortexgen generate` that it has.

    Raises:
        UserError: for weights of a stage of ours, or options that it is drawn without.
    """
    place = choose_device(device)
    generator: Generator = load_image_generator(checkpoint).to(place).take(**options).generator
    return generator


class Looks(NamedTuple):
    """What is asked of an appearance, by the names of `cortexgen generate`."""

    appearance: str | None = None
    style: Mapping[str, float] | None = None
    appearance_steps: int | None = None
    appearance_patch: int | None = None
    finer: str | None = None
    donors: Path | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> tuple["Looks", dict[str, Any]]:
        """Those of some options, and the others."""
        others = {name: value for name, value in options.items() if name not in cls._fields}
        return cls(**{name: value for name, value in options.items() if name in cls._fields}), others


def _dressed(velocities: Any, asked: Looks, precision: Precision) -> FieldGenerator:
    """A generator with the appearance asked for; the template's, with a warning, where the default one doesn't fit."""
    looks = _appearance(asked, velocities.device, precision)
    try:
        return FieldGenerator(velocities, looks)
    except UnfitAppearance as error:
        if asked.appearance is not None or asked.finer is not None:
            raise
        warnings.warn(f"{error}; the brains get the warped template's own image", stacklevel=3)
        return FieldGenerator(velocities)


def _appearance(asked: Looks, device: torch.device, precision: Precision) -> Appearance | None:
    """Stage 3: the package's by default, or as "learned"; None for "template"; else a file or the name of others.

    Raises:
        UserError: for other weights, or options that can't be met.
    """
    name, donors = asked.appearance, asked.donors
    if name == "donors" and donors is None:
        raise UserError("appearance: donors needs a cohort of them, donors")
    if name != "donors" and donors is not None:
        raise UserError("donors: only appearance donors takes them")
    for option in ("style", "appearance_steps", "appearance_patch", "finer"):
        if name in ("template", "donors") and getattr(asked, option) is not None:
            raise UserError(f"{option}: only a learned appearance takes it, not {name}")
    if name == "template":
        return None
    if donors is not None:
        return DonorAppearance(donors, Registrar(network(), load_template(), str(device), precision))
    how = (asked.appearance_steps, precision, asked.appearance_patch)
    module = load_appearance(None if name in (None, "learned") else name)
    looks = LearnedAppearance(module.to(device), asked.style, *how)
    if asked.finer is None:
        return looks
    return CascadedAppearance(looks, LearnedAppearance(load_appearance(asked.finer).to(device), None, *how))
