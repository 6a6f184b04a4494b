"""What the demo measures against the simulation's truth, and its figures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cortexgen import figures
from cortexgen.atlas.template import Template, load_template
from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.errors import UserError
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import derivative, read_tsv, sidecar, transform
from cortexgen.pages.report import Report
from cortexgen.spatial import folded, integrate, log_jacobian, resample_field, warp


@dataclass(frozen=True)
class Result:
    """Numbers and the material for the pictures.

    Attributes:
        metrics: what metrics.json holds.
        subjects: a row for each held-out subject.
        classes: names of the regions.
        volumes: simulated and generated, `[N, regions]` in millilitres.
    """

    metrics: dict[str, Any]
    subjects: list[dict[str, Any]]
    classes: list[str]
    volumes: tuple[Tensor, Tensor]
    cohort: list[Scan]
    brains: list[Scan]
    fields: Path
    template: Template


def _volumes(scans: Sequence[Scan], classes: int, what: str) -> Tensor:
    """Regional volumes `[N, classes - 1]` in millilitres, by counting voxels of the dsegs."""
    rows = []
    for scan in tqdm(scans, desc=what, unit="scan", disable=None, leave=False):
        if scan.labels is None:
            raise UserError(f"{scan.image}: no dseg beside it")
        labels, grid = read_volume(scan.labels, labels=True)
        rows.append(torch.bincount(labels.flatten(), minlength=classes)[1:classes].double() * grid.voxel_volume / 1000)
    return torch.stack(rows)


def _errors(cohort: Path, fields: Path, scan: Scan, template: Template) -> tuple[float, float]:
    """Mean endpoint error against the true field inside the brain in mm, of doing nothing and of the registration."""
    found, grid = read_field(transform(fields, scan.name, template.name, "T1w"))
    path = derivative(cohort / "truth", scan.name, "field", space=template.name, desc="velocity")
    velocity, coarse = read_field(path)
    steps = json.loads(sidecar(path).read_text(encoding="utf-8"))["IntegrationSteps"]
    true = resample_field(integrate(velocity[None], steps), coarse.torch_affine, grid.shape, grid.torch_affine)[0]
    brain = warp(template.to(grid).mask[None].float(), true[None])[0, 0] > 0.5
    scale = float(np.mean(grid.spacing))
    before, after = (torch.linalg.vector_norm(u, dim=0)[brain].mean() * scale for u in (true, true - found))
    return float(before), float(after)


def measure(cohort: Path, fields: Path, brains: Path) -> Result:
    """Compare registrations with the truth, and generated with simulated regional volumes."""
    simulated, generated = read_cohort(cohort), read_cohort(brains)
    grid = read_volume(simulated[0].image)[1]
    template = load_template().to(grid)
    held_out = [row for row in read_tsv(fields / "registration.tsv") if row["split"] == "test"]
    by_name = {scan.name: scan for scan in simulated}
    subjects = []
    for row in tqdm(held_out, desc="true fields", unit="scan", disable=None, leave=False):
        before, after = _errors(cohort, fields, by_name[row["participant_id"]], template)
        keys = ("participant_id", "dice_before", "dice", "ssim_before", "ssim", "folded_voxels")
        subjects.append({key: row[key] for key in keys} | {"error_before_mm": before, "error_mm": after})
    mean = {key: float(np.mean([s[key] for s in subjects])) for key in subjects[0] if key != "participant_id"}

    classes = len(template.classes)
    real, synthetic = _volumes(simulated, classes, "simulated volumes"), _volumes(generated, classes, "new volumes")
    ratio = synthetic.std(dim=0) / real.std(dim=0)
    effect = (synthetic.mean(dim=0) - real.mean(dim=0)) / ((synthetic.var(dim=0) + real.var(dim=0)) / 2).sqrt()
    names = list(template.classes[1:])
    folds = sum(_folds(transform(brains, scan.name, template.name, "T1w")) for scan in generated)
    registration = {"subjects": len(subjects), **mean, "folded_voxels": int(sum(s["folded_voxels"] for s in subjects))}
    registration["error_reduction"] = 1 - mean["error_mm"] / mean["error_before_mm"]
    registration["dice_gain"] = mean["dice"] - mean["dice_before"]
    generation = {
        "samples": len(generated),
        "folded_voxels": folds,
        "sd_ratio_median": float(ratio.median()),
        "sd_ratio": dict(zip(names, ratio.tolist(), strict=True)),
        "cohens_d": dict(zip(names, effect.tolist(), strict=True)),
    }
    metrics = {"registration": registration, "generation": generation}
    return Result(metrics, subjects, names, (real, synthetic), simulated, generated, fields, template)


def _folds(path: Path) -> int:
    return int(folded(read_field(path)[0][None])[0])


def _load(path: Path | None) -> Tensor:
    if path is None:
        raise UserError("the cohort has an image without a dseg")
    return read_volume(path)[0][0]


def write_report(path: Path, result: Result, runs: Mapping[str, Path]) -> None:
    """One self-contained HTML file."""
    r, g = result.metrics["registration"], result.metrics["generation"]
    grid, template = result.template.grid, result.template
    page = Report("cortexgen demo", "Both stages at toy size on a simulated cohort of the MNI152 template.")
    page.key_figures(
        [
            ("Endpoint error", f"{r['error_mm']:.2f} mm", f"{r['error_before_mm']:.2f} mm before registration"),
            ("Dice", f"{r['dice']:.3f}", f"{r['dice_before']:.3f} before registration"),
            ("Folded voxels", f"{r['folded_voxels'] + g['folded_voxels']}", "held-out registrations and new brains"),
            ("Spread of volumes", f"{g['sd_ratio_median']:.2f}", "generated to simulated, median over regions"),
        ]
    )
    page.section("New brains", "Slices of simulated subjects and of generated ones, each with its labels.")
    shown = min(6, len(result.brains))
    rows = {
        "Simulated subjects": [_load(s.image) for s in result.cohort[:shown]],
        "Generated brains": [_load(s.image) for s in result.brains[: 2 * shown]],
    }
    dsegs = {
        "Simulated subjects": [_load(s.labels) for s in result.cohort[:shown]],
        "Generated brains": [_load(s.labels) for s in result.brains[: 2 * shown]],
    }
    for plane in ("axial", "coronal", "sagittal"):
        page.figure(figures.cohort(rows, grid, plane=plane), f"{plane.capitalize()} slices.")
    page.figure(figures.cohort(rows, grid, plane="coronal", labels=dsegs), "The labels come through the same field.")

    page.section("Registration", "A held-out subject: the template is warped onto it in one pass.")
    name = result.subjects[0]["participant_id"]
    forward, _ = read_field(transform(result.fields, name, template.name, "T1w"))
    inverse, _ = read_field(transform(result.fields, name, "T1w", template.name))
    fixed = _load(next(s.image for s in result.cohort if s.name == name))
    warped = _load(derivative(result.fields, name, "T1w", desc="warped"))
    growth = log_jacobian(inverse[None])[0, 0]
    page.figure(
        figures.registration(template.image[0], fixed, warped, forward, growth, grid),
        f"{name}: template, subject, warped template, differences, the field as a grid, log growth from the template.",
    )
    page.table(
        result.subjects, "Held-out simulated subjects.", {k: ".3f" for k in result.subjects[0] if k != "folded_voxels"}
    )

    page.section(
        "A generated field", "The field of the first new brain, and the growth it means for each template voxel."
    )
    new = result.brains[0]
    displacement, _ = read_field(transform(new.image.parents[2], new.name, template.name, "T1w"))
    velocity, coarse = read_field(
        derivative(new.image.parents[2], new.name, "field", space=template.name, desc="velocity")
    )
    back = resample_field(integrate(velocity[None], inverse=True), coarse.torch_affine, grid.shape, grid.torch_affine)
    page.figure(figures.deformed_grid(displacement, grid, background=_load(new.image)), "The field as a grid.")
    page.figure(
        figures.log_jacobian_map(log_jacobian(back)[0, 0], template.image[0], grid),
        "log |J| of exp(-v), above 0 growth.",
    )

    page.section("Regional volumes", "Voxel counts of the label maps, the same on both sides.")
    page.figure(
        figures.volume_distributions(result.classes, *result.volumes, cohorts=("Simulated", "Generated")),
        "Relative to the simulated mean.",
    )
    page.table(
        [{"region": n, "sd_ratio": g["sd_ratio"][n], "cohens_d": g["cohens_d"][n]} for n in result.classes],
        "Ratio of standard deviations (generated to simulated) and effect size of the means.",
        {"sd_ratio": ".2f", "cohens_d": "+.2f"},
    )
    page.section("Training")
    for stage, run in runs.items():
        logs = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
        if logs:
            page.figure(figures.training_curves(logs), f"Stage: {stage}.")
    page.table([{"step": k, "seconds": v} for k, v in result.metrics["seconds"].items()], "Time.", {"seconds": ".0f"})
    page.write(path)
