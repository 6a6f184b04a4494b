"""The commands as functions, for notebooks."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.contracts import Brain, Registered
from cortexgen.io import HeaderChoice
from cortexgen.io.header import Form
from cortexgen.registration.registrar import Affine, Registrar, in_numbers
from cortexgen.runner.precision import Precision
from cortexgen.runner.threads import side_by_side
from cortexgen.weights.models import fields, network


@lru_cache(maxsize=2)
def _registrar(
    checkpoint: Path | None, template: str, device: str, precision: Precision, affine: Affine, choice: HeaderChoice
) -> Registrar:
    return Registrar(network(checkpoint, mirror=None), load_template(template), device, precision, affine, choice)


def register(
    moving: str | Path,
    fixed: str | Path,
    *,
    moving_labels: str | Path | None = None,
    refine: int = 6,
    refine_intensity: float = 0.0,
    mirror: bool = False,
    checkpoint: str | Path | None = None,
    affine: Affine = "auto",
    trust: Form | None = None,
    orientation: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Registered:
    """Register one skull-stripped T1w, or the template, onto another.

    Arguments:
        moving: a NIfTI file, or "MNI152NLin2009aSym" for the template and its labels.
        fixed: a NIfTI file.
        moving_labels: a dseg of a moving file.
        refine: gradient steps on this pair after the network's answer.
        refine_intensity: weight of the squared difference of intensities in those steps.
        mirror: average the answers to the pair and to its mirror image.
        checkpoint: other weights, a file or a name as of `cortexgen register`.
        affine: run the affine to template space where it is needed, always, or never.
        trust, orientation: what decides where a file's header leaves a choice, as of `cortexgen register`.
        device, precision: as of `cortexgen register`.

    Returns:
        Displacement and inverse in voxels of the images' grids, the warped image and labels, volumes, log |J|; the
        images and their grids are its `moving` and `fixed`.

    Raises:
        UserError: if an image can't be read, is no skull-stripped brain, or can't be aligned.
    """
    choice = HeaderChoice(trust, orientation)
    registrar = _registrar(Path(checkpoint) if checkpoint else None, MNI152, device, precision, affine, choice)
    module: Any = registrar.registration
    module.refine, module.refine_intensity, module.mirror = refine, refine_intensity, mirror
    module.check_mirror()
    target = registrar.prepare(Path(fixed))
    if str(moving) == MNI152:
        source = registrar.atlas(min(target.space.grid.spacing))
    else:
        source = registrar.prepare(Path(moving), Path(moving_labels) if moving_labels else None)
    return in_numbers(registrar.register(source, target))


def generate(
    num_samples: int = 1,
    *,
    seed: int = 0,
    conditions: Mapping[str, float | str] | None = None,
    guidance: float | None = None,
    correction: float | None = None,
    steps: int | None = None,
    appearance: str | None = None,
    style: Mapping[str, float] | None = None,
    resolution: float | None = None,
    native_size: bool = False,
    micro_batch: int | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> list[Brain]:
    """Draw new, labelled brains; the first ones of `cortexgen generate` with the same seed and options.

    Arguments:
        num_samples: how many.
        seed: sample k depends on it and on k alone.
        conditions: covariates by name, such as `{"age": 50, "sex": "F"}`.
        guidance, correction, steps, appearance, style, resolution, native_size, micro_batch: as of
            `cortexgen generate`.
        checkpoint: other weights, a file or a name as of `cortexgen generate`.
        device, precision: as of `cortexgen register`.

    Returns:
        Of each brain the image `[1, D, H, W]` in [0, 1], labels, grid, displacement, velocity and volumes (ml).

    Raises:
        UserError: for options that can't be met, or weights of stage 1.
    """
    given: dict[str, Any] = {"conditions": dict(conditions) if conditions else None, "guidance": guidance}
    given |= {"correction": correction, "steps": steps, "resolution": resolution, "native_size": native_size}
    given |= {"appearance": appearance, "style": style}
    given |= {"seed": seed, "micro_batch": micro_batch, "precision": precision}
    generator = fields(Path(checkpoint) if checkpoint else None, device, **given)

    def draw(first: int) -> list[Brain]:
        return list(generator.draws(range(first, min(first + generator.batch, num_samples))))

    batches = side_by_side(draw, range(0, num_samples, generator.batch))
    return [brain for brains in batches for brain in brains]
