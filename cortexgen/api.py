"""The commands as functions, for notebooks."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.generation.drawing import Sample, Sampler
from cortexgen.io import HeaderChoice
from cortexgen.io.header import Form
from cortexgen.registration.propagation import Propagated
from cortexgen.registration.registrar import Affine, Registrar
from cortexgen.runner.precision import Precision, choose_device
from cortexgen.runner.threads import side_by_side
from cortexgen.weights import load_generator, load_registration


@lru_cache(maxsize=2)
def _registrar(
    checkpoint: Path | None, template: str, device: str, precision: Precision, affine: Affine, choice: HeaderChoice
) -> Registrar:
    module = load_registration(checkpoint)
    return Registrar(module, load_template(template), device, precision, affine, choice)


def register(
    moving: str | Path,
    fixed: str | Path,
    *,
    moving_labels: str | Path | None = None,
    refine: int = 0,
    refine_intensity: float = 8.0,
    mirror: bool = True,
    checkpoint: str | Path | None = None,
    affine: Affine = "auto",
    trust: Form | None = None,
    orientation: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Propagated:
    """Register one skull-stripped T1w, or the template, onto another.

    Arguments:
        moving: a NIfTI file, or "MNI152NLin2009aSym" for the template and its labels.
        fixed: a NIfTI file.
        moving_labels: a dseg of a moving file.
        refine: gradient steps on this pair after the network's answer.
        refine_intensity: weight of the squared difference of intensities in those steps.
        mirror: average the answers to the pair and to its mirror image.
        checkpoint: other weights than the package's.
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
    registrar.module.refine, registrar.module.refine_intensity = refine, refine_intensity
    registrar.module.mirror = mirror
    registrar.module.check_mirror()
    target = registrar.prepare(Path(fixed))
    if str(moving) == MNI152:
        source = registrar.atlas(min(target.space.grid.spacing))
    else:
        source = registrar.prepare(Path(moving), Path(moving_labels) if moving_labels else None)
    return registrar.register(source, target)


def generate(
    num_samples: int = 1,
    *,
    seed: int = 0,
    conditions: Mapping[str, float | str] | None = None,
    guidance: float | None = None,
    correction: float | None = None,
    steps: int | None = None,
    resolution: float | None = None,
    native_size: bool = False,
    micro_batch: int | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> list[Sample]:
    """Draw new, labelled brains; the first ones of `cortexgen generate` with the same seed and options.

    Arguments:
        num_samples: how many.
        seed: sample k depends on it and on k alone.
        conditions: covariates by name, such as `{"age": 50, "sex": "F"}`.
        guidance, correction, steps, resolution, native_size, micro_batch: as of `cortexgen generate`.
        checkpoint: other weights than the package's.
        device, precision: as of `cortexgen register`.

    Returns:
        Of each brain the image `[1, D, H, W]` in [0, 1], labels, grid, displacement, velocity and volumes (ml).

    Raises:
        UserError: for options that can't be met, or weights of stage 1.
    """
    module = load_generator(checkpoint)
    module.num_samples, module.sample_seed = num_samples, seed
    module.conditions = dict(conditions) if conditions else None
    module.guidance, module.correction, module.steps = guidance, correction, steps
    module.spacing, module.native_size = resolution, native_size
    module.micro_batch, module.precision = micro_batch, precision
    module.check_options()
    sampler = Sampler(module.to(choose_device(device)))

    def draw(first: int) -> list[Sample]:
        return list(sampler.draws([k for k in module.together(first) if k < num_samples]))

    groups = side_by_side(draw, range(0, num_samples, module.batch))
    return sorted((sample for group in groups for sample in group), key=lambda sample: sample.index)
