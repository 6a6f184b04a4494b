"""A simulated cohort: the template under random diffeomorphisms, with age, sex, and a scanner's gain, bias and noise.

Everything a real cohort hides is kept: fields, labels and covariates are the truth, so registration and generation can
be checked against it. `cortexgen.simulation.shape` holds the distribution of anatomies.
"""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.atlas.colours import write_label_tables
from cortexgen.atlas.template import Template, load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, write_field, write_json, write_volume
from cortexgen.io.bids import STRIPPED, derivative, describe_dataset, sidecar, write_tsv
from cortexgen.io.output import claim, settings
from cortexgen.io.participants import read_covariates
from cortexgen.io.paths import folder_within, visible, within
from cortexgen.runner.progress import tracked
from cortexgen.simulation.shape import (
    INTEGRATION_STEPS,
    Anatomy,
    Subject,
    known_regions,
    noise_spectrum,
    prepare,
    simulate_subject,
    smooth_noise,
    wave_vectors,
)
from cortexgen.spatial import antialias, identity, integrate, resample_field, sample, warp_labels

RECORD = "truth/simulation.json"  # by which a folder is known
VERSION = 1  # of the simulation: raised when the same seed gives other subjects
# Appearance, intensities in [0, 1].
GAIN_SD = 0.03  # of the logarithm
GAMMA_MEAN, GAMMA_SD = 0.5, 0.1  # of the logarithm: the template's grey matter is paler than that of single scans
BIAS_SD = 0.04  # of the logarithm
BIAS_SMOOTHING, BIAS_SPACING = 40.0, 16.0  # millimetres; the latter of the grid on which the bias is drawn
NOISE_SD = (0.01, 0.025)  # range of Rician noise
AIR = 0.02  # below this a voxel of the clean image is outside the brain, and stays 0 as after skull-stripping


def simulate_cohort(
    out: Path,
    subjects: int = 60,
    seed: int = 0,
    spacing: float = 2.0,
    template: Template | None = None,
    progress: bool = True,
) -> None:
    """Write a simulated cohort as a BIDS derivative data set; subjects that are there already are kept.

    `participants.tsv` has age (years), sex and brain_volume_ml; each subject has an image and a dseg on a grid of
    `spacing`; `truth/` holds the velocity of each, on a 4 mm grid, its log volume changes beside it, and the
    simulation's parameters in `simulation.json`.

    Arguments:
        seed: subject k depends on the seed, k, the spacing and the template, and on nothing else.
        spacing: of images and labels, in millimetres.
        template: with labels named as `simulation_shape.VARIATION` does; the MNI152 template unless given.
        progress: show a bar.

    Raises:
        UserError: if `out` holds anything but the same simulation or leads elsewhere, or the template has no known
            labels.
    """
    out = Path(out)
    if subjects < 1 or seed < 0 or not spacing > 0:
        found = f"{subjects}, {seed} and {spacing:g}"
        raise UserError(f"expected at least 1 subject, a seed from 0 on and a spacing above 0 mm, found {found}")
    template = load_template() if template is None else template
    known_regions(template)
    grid = template.grid.at_spacing(spacing)
    parameters = {"Simulation": VERSION, "Seed": seed, "Spacing": spacing, "Template": template.hash}
    if claim(out, lambda root: _same(root, parameters), tables={"participants.tsv": ["participant_id"]}):
        write_json(within(out, *RECORD.split("/")), parameters)
    if not (out / "dataset_description.json").is_file():
        about = {"Description": f"anatomies drawn around {template.name}, seed {seed}"}
        describe_dataset(out, "Simulated cohort", about)
    write_label_tables(out, dict(enumerate(template.classes)))

    ids = [f"sub-{k + 1:04d}" for k in range(subjects)]
    files = [subject_files(out, name, template, grid) for name in ids]
    missing = [k for k in range(subjects) if not all(path.is_file() for path in files[k])]
    if missing:
        anatomy, coarse = prepare(template), template.to(grid)
        factors = [g / t for g, t in zip(grid.spacing, template.grid.spacing, strict=True)]
        smooth = antialias(template.image[None], factors)
        for k in tracked(missing, "simulating", unit="subject") if progress else missing:
            subject = simulate_subject(anatomy, seed, k)
            rng = np.random.default_rng([seed, k, 1])
            image, labels = scan(subject, anatomy.grid, smooth, template.grid, coarse, rng)
            _write(out, ids[k], subject, anatomy, image, labels, coarse)

    truths = {path.name.split("_")[0]: path for path in visible(out / "truth", "sub-*/anat/*_desc-velocity_field.json")}
    before = read_covariates(out, [(name.removeprefix("sub-"), "") for name in truths], warn=False)
    true = [json.loads(path.read_text(encoding="utf-8"))["Covariates"] for path in truths.values()]
    rows = [{"participant_id": name, **row, **now} for name, row, now in zip(truths, before, true, strict=True)]
    write_tsv(out / "participants.tsv", rows)


def subject_files(out: Path, name: str, template: Template, grid: Grid) -> tuple[Path, Path, Path, Path]:
    """Paths of a subject's image, dseg, true velocity and its sidecar, which is written last."""
    space = {"space": template.name, "res": f"{grid.spacing[0]:g}".replace(".", "p")}
    velocity = derivative(folder_within(out, "truth"), name, "field", space=template.name, desc="velocity")
    image = derivative(out, name, "T1w", **space, desc="preproc")
    return image, derivative(out, name, "dseg", **space), velocity, sidecar(velocity)


def scan(
    subject: Subject, grid: Grid, image: Tensor, image_grid: Grid, template: Template, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Warp the template onto a subject, and image it.

    Arguments:
        subject: its velocity lies on `grid`.
        image: `[1, 1, D, H, W]` on `image_grid`, the sharp template smoothed for the output's spacing.
        template: on the output's grid; its labels are warped.
        rng: of gain, gamma, bias and noise.

    Returns:
        Image `[1, d, h, w]`, float32 in [0, 1], and labels `[1, d, h, w]`, int64, on the template's grid.
    """
    target = template.grid
    field = integrate(subject.velocity[None], INTEGRATION_STEPS)
    field = resample_field(field, grid.torch_affine, target.shape, target.torch_affine)
    positions = identity(target.shape) + field
    between = (torch.linalg.inv(image_grid.torch_affine) @ target.torch_affine).float()
    inside = torch.einsum("ij,bjdhw->bidhw", between[:3, :3], positions) + between[:3, 3].view(1, 3, 1, 1, 1)
    clean = sample(image, inside, padding="zeros")[0]

    labels = torch.zeros(1, *target.shape, dtype=torch.int64)
    source = cast(Tensor, template.labels)
    near = sample((source > 0).float()[None], positions)[0, 0] > 0
    winner, _ = warp_labels(source[None], positions[:, :, near][:, :, None, None], len(template.classes))
    labels[0, near] = winner.flatten()
    return _appearance(clean, target, rng), labels


def _appearance(clean: Tensor, grid: Grid, rng: np.random.Generator) -> Tensor:
    """Gain, gamma, bias field and Rician noise of an image `[1, D, H, W]`; what is air stays 0."""
    gain, gamma = np.exp(rng.normal(0, GAIN_SD)), np.exp(rng.normal(GAMMA_MEAN, GAMMA_SD))
    coarse = grid.at_spacing(BIAS_SPACING)
    spectrum = noise_spectrum(wave_vectors([2 * n for n in coarse.shape]), [(BIAS_SMOOTHING / BIAS_SPACING, BIAS_SD)])
    bias = smooth_noise(rng, spectrum, 1, coarse.shape)
    bias = F.interpolate(bias[None], grid.shape, mode="trilinear", align_corners=True)[0]
    image = gain * clean**gamma * bias.exp()
    sd = rng.uniform(*NOISE_SD)
    real, imaginary = sd * torch.from_numpy(rng.standard_normal((2, *clean.shape), dtype=np.float32))
    image = torch.hypot(image + real, imaginary)
    return torch.where(clean > AIR, image, 0.0).clamp(0, 1)


def _same(out: Path, parameters: dict[str, Any]) -> bool:
    """Whether a folder holds the same simulation."""
    found = settings(out / RECORD)
    if found is not None and found != parameters:
        raise UserError(f"{out} holds another simulation: found {found}, expected {parameters}")
    return found is not None


def _write(
    out: Path, name: str, subject: Subject, anatomy: Anatomy, image: Tensor, labels: Tensor, template: Template
) -> None:
    grid = template.grid
    image_path, label_path, velocity_path, truth_path = subject_files(out, name, template, grid)
    reference = {"SpatialReference": template.name, "Sources": [f"bids::{velocity_path.relative_to(out).as_posix()}"]}
    reference |= {"Resolution": f"voxels of {grid.spacing[0]:g} mm"}
    write_volume(image_path, image, grid, np.uint8)
    write_json(sidecar(image_path), reference | STRIPPED)
    write_volume(label_path, labels, grid, np.uint8)
    write_json(sidecar(label_path), reference)
    write_field(velocity_path, subject.velocity, anatomy.grid)
    truth = {
        "IntegrationSteps": INTEGRATION_STEPS,
        "SpatialReference": template.name,
        "Covariates": {"age": subject.age, "sex": subject.sex, "brain_volume_ml": subject.brain_volume_ml},
        "HeadScale": subject.head_scale,
        "LogGrowth": dict(zip([*anatomy.classes, "CSF"], subject.log_growth.tolist(), strict=True)),
    }
    write_json(truth_path, truth)
