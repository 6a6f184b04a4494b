"""Trained weights as registrations and generators, found by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cortexgen.atlas.labels import LabelMap
from cortexgen.atlas.template import Template
from cortexgen.contracts import Registration
from cortexgen.diffusion import SamplerName
from cortexgen.errors import UserError
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.runner.precision import Precision, choose_device
from cortexgen.weights.reading import load_generator, load_registration


def network(
    checkpoint: Path | None = None,
    refine: int = 0,
    refine_intensity: float = 8.0,
    mirror: bool | None = True,
) -> Registration:
    """Stage 1.

    Arguments:
        checkpoint: other weights than the package's.
        refine: gradient steps on each pair after the network's answer.
        refine_intensity: weight of the squared difference of intensities in those steps.
        mirror: average the answers to the pair and to its mirror image; None where the weights' grid allows it.

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
    seed: int = 0,
    conditions: Mapping[str, Any] | None = None,
    guidance: float | None = None,
    correction: float | None = None,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    resolution: float | None = None,
    native_size: bool = False,
    save_fields: bool = False,
    template: Template | None = None,
    parcellation: LabelMap | None = None,
    micro_batch: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> FieldGenerator:
    """Stage 2, and the template that its fields warp; options are those of `cortexgen generate`.

    Raises:
        UserError: for other weights than stage 2's, or options that can't be met.
    """
    module = load_generator(checkpoint)
    module.sampler, module.steps, module.guidance, module.correction = sampler, steps, guidance, correction
    drawn = module.to(choose_device(device)).take(
        sample_seed=seed,
        conditions=conditions,
        spacing=resolution,
        native_size=native_size,
        save_fields=save_fields,
        template=template,
        parcellation=parcellation,
        micro_batch=micro_batch,
        precision=precision,
    )
    return FieldGenerator(drawn)
