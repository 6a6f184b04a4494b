"""Trained weights as registrations and generators, found by name."""

from pathlib import Path
from typing import Any

from cortexgen.contracts import Registration
from cortexgen.errors import UserError
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.runner.precision import choose_device
from cortexgen.weights.reading import load_generator, load_registration


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


def fields(checkpoint: Path | None = None, device: str = "auto", **options: Any) -> FieldGenerator:
    """Stage 2, and the template that its fields warp; options are those of `cortexgen generate`.

    Raises:
        UserError: for other weights than stage 2's, or options that can't be met.
    """
    return FieldGenerator(load_generator(checkpoint).to(choose_device(device)).take(**options))
