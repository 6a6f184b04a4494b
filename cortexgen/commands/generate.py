"""`cortexgen generate`: a cohort of new, labelled brains."""

from pathlib import Path
from typing import Any

from cortexgen.atlas.labels import read_labels
from cortexgen.atlas.template import load_template
from cortexgen.commands.rehearsal import say_plan
from cortexgen.diffusion import SamplerName
from cortexgen.errors import UserError
from cortexgen.generation.cohort import DATASET, generate_cohort, missing_brains
from cortexgen.generation.folder import sample_name
from cortexgen.io import HeaderChoice
from cortexgen.io.header import Form
from cortexgen.io.output import examine_run
from cortexgen.io.tables import COHORT
from cortexgen.pages.generated import write_report
from cortexgen.runner.verbosity import say


def generate(
    out: Path,
    num_samples: int = 10,
    seed: int = 0,
    age: float | None = None,
    sex: str | None = None,
    cohort: str | None = None,
    conditions: dict[str, float | str] | None = None,
    guidance: float | None = None,
    correction: float | None = None,
    sampler: SamplerName | None = None,
    steps: int | None = None,
    appearance: str | None = None,
    style: dict[str, float] | None = None,
    appearance_steps: int | None = None,
    appearance_patch: int | None = None,
    finer: str | None = None,
    donors: Path | None = None,
    warped_labels: bool = False,
    resolution: float | None = None,
    native_size: bool = False,
    save_fields: bool = False,
    labels: Path | None = None,
    label_table: Path | None = None,
    template: Path | None = None,
    template_labels: Path | None = None,
    trust: Form | None = None,
    generator: str = "fields",
    checkpoint: Path | None = None,
    deformation_model: Path | None = None,
    devices: int = 1,
    micro_batch: int | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    dry_run: bool = False,
    page: bool = True,
) -> None:
    """Write new, labelled brains: image, labels and field of each, covariates, volumes, a manifest, and a page.

    The MNI152 template is warped by a new velocity field; a second network gives that shape an image of its own, with
    its sulci, contrast and noise, and the cortex's labels are fitted to it. Weights come with the package. Samples
    whose field folds, or whose regional volumes lie beyond 4 SD of the training cohort's, are drawn again and counted
    in manifest.json. Sample k depends on the seed and k alone, to the byte on one kind of machine; a cohort that was
    interrupted goes on when called again, and the same call with a larger --num-samples adds to it.

    Args:
        out: Folder to write to, as BIDS derivatives.
        num_samples: How many brains.
        seed: Of the cohort.
        age: Ask for this age, in years.
        sex: Ask for this sex, F or M.
        cohort: Ask for this cohort, of weights that were trained on several.
        conditions: Other covariates by name, such as '{brain_volume_ml: 1400}'.
        guidance: Weight of what is asked for; 1 is as in the cohort, more exaggerates it. The weights' own (1) unless
            given, as correction (0), sampler (dpm++) and steps (24).
        correction: Weight of the network's correction to the Gaussian prior of its training fields: 0 is the prior
            alone; 1 follows what held-out subjects have, at the cost of more rejected draws.
        sampler: dpm++, ddim (loses a third of the spread at 12 steps), or ancestral (the paper's, with fresh noise in
            each step; give it 50 steps or more, the paper 256).
        steps: Network evaluations a brain.
        appearance: learned (the default, where its weights fit the brains' voxels and template), template (the warped
            template's own image), donors (a real brain's image and labels, deformed: not private), or other weights, a
            .ckpt or .safetensors file.
        style: What to fix of a learned appearance, such as '{noise: 0.01, contrast: 0.4}': white, the level of white
            matter in [0, 1], and as shares of it contrast, fluid, noise and bias. The rest is drawn with the brain.
        appearance_steps: Network evaluations of a learned appearance; the weights' own (10) unless given.
        appearance_patch: Work on overlapping parts of so many voxels a side, a multiple of 8, to save memory; on whole
            brains unless given, where memory allows it.
        finer: Weights that make such images finer, of a fit with data.coarse: with them, and --resolution, brains of
            1 mm get an image of 2 mm first, which these go on with.
        donors: The cohort of real brains for that, with dsegs of the template's classes, on the brains' grid.
        warped_labels: Write the labels before they are fitted to the image, too, as desc-warped_dseg.
        resolution: Voxel size in millimetres, 1 for instance; the training images' (2) unless given.
        native_size: Draw the size of the head too, and write brains of that size instead of template space.
        save_fields: Write velocity, inverse transform and log |J| of each brain too.
        labels: Another parcellation of the template to warp, a dseg in its space.
        label_table: Names of its classes, or of a template file's, with columns index and name.
        template: The template of other weights, a NIfTI file; the one that they name unless given.
        template_labels: The dseg of a template file.
        trust: The one to take, sform or qform, where those of these files differ, which is refused unless it is given.
        generator: fields (a template warped by fields from the package's weights, or others), or another package's.
        checkpoint: Other weights: a .ckpt of `cortexgen fit`, a .safetensors of `cortexgen export`, or the name of some
            that come with the package, generate-ds002748-2mm.
        deformation_model: Draw from the principal components of the registered fields in this folder instead (the
            classical statistical deformation model, a yardstick).
        devices: GPUs, or processes on a CPU.
        micro_batch: Brains that the network draws in one call, for a GPU's sake: 8 there and 1 on a CPU unless given.
        jobs: Processes on this machine; with one, brains are drawn side by side in threads.
        scheduler: Address of a Dask scheduler whose workers draw; needs `cortexgen[cluster]` and folders that all of
            them see.
        dry_run: See that the options can be met, say how many brains would be drawn and how many are there, and write
            nothing.
        page: Write generated.html, where the first twelve brains turn and scroll in any browser.
    """
    counts = {"num_samples": num_samples, "steps": steps, "micro_batch": micro_batch, "devices": devices}
    counts |= {"jobs": jobs, "appearance_steps": appearance_steps}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"--{name}: expected 1 or more, got {value}")
    parcellation = read_labels(labels, label_table, HeaderChoice(trust)) if labels else None
    named = {"age": age, "sex": sex, COHORT: cohort}
    chosen = {k: v for k, v in ((conditions or {}) | named).items() if v is not None}
    examine_run(out, DATASET)
    original = load_template(template, template_labels, None if labels else label_table, trust) if template else None
    options: dict[str, Any] = {"seed": seed, "conditions": chosen or None, "guidance": guidance}
    options |= {"correction": correction, "sampler": sampler, "steps": steps, "resolution": resolution}
    options |= {"native_size": native_size or None, "save_fields": save_fields or None, "template": original}
    options |= {"appearance": appearance, "style": style, "appearance_steps": appearance_steps}
    options |= {"appearance_patch": appearance_patch, "finer": finer, "donors": donors}
    options |= {"warped_labels": warped_labels or None}
    options |= {"parcellation": parcellation, "checkpoint": checkpoint, "micro_batch": micro_batch}
    if deformation_model:
        if generator != "fields":
            raise UserError(f"--deformation_model: is a generator of its own, not with --generator {generator}")
        generator, options = "deformation-model", options | {"fields": deformation_model}
    if dry_run:
        missing = missing_brains(out, num_samples, generator, options)
        there = {sample_name(k) for k in range(num_samples)} - {*missing}
        return say_plan("generate", "brain", missing, there)
    rejected = generate_cohort(out, num_samples, generator, options, max(jobs, devices), scheduler, devices)
    if page:
        write_report(out)
    say(f"{num_samples} brain(s), {rejected} draw(s) rejected: {out}")
