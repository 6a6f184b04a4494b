"""Registrations and new brains of a simulated cohort against the truth, which the simulation wrote beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.atlas.template import Template, load_template
from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.errors import UserError
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import derivative, read_tsv, sidecar, transform
from cortexgen.runner.progress import tracked
from cortexgen.spatial import folded, integrate, resample_field, warp


@dataclass(frozen=True)
class Result:
    """Numbers and the material for the pictures.

    Attributes:
        metrics: what metrics.json holds.
        subjects: a row for each held-out subject.
        volumes: simulated and generated, `[N, regions]` in millilitres.
    """

    metrics: dict[str, Any]
    subjects: list[dict[str, Any]]
    volumes: tuple[Tensor, Tensor]
    cohort: list[Scan]
    brains: list[Scan]
    fields: Path
    template: Template


def _volumes(scans: Sequence[Scan], classes: int, what: str) -> Tensor:
    """Regional volumes `[N, classes - 1]` in millilitres, by counting voxels of the dsegs.

    Where labels were fitted to the images, those before are counted: the truth is the template's labels, warped.
    """
    rows = []
    for scan in tracked(scans, what, leave=False):
        if scan.labels is None:
            raise UserError(f"{scan.image}: no dseg beside it")
        before = derivative(scan.image.parents[2], scan.name, "dseg", desc="warped")
        labels, grid = read_volume(before if before.is_file() else scan.labels, labels=True)
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
    for row in tracked(held_out, "true fields", leave=False):
        before, after = _errors(cohort, fields, by_name[row["participant_id"]], template)
        keys = ("participant_id", "dice_before", "dice", "ssim_before", "ssim", "folded_voxels")
        subjects.append({key: row[key] for key in keys} | {"error_before_mm": before, "error_mm": after})
    mean = {key: float(np.mean([s[key] for s in subjects])) for key in subjects[0] if key != "participant_id"}

    classes = len(template.classes)
    real, synthetic = _volumes(simulated, classes, "simulated volumes"), _volumes(generated, classes, "new volumes")
    ratio = synthetic.std(dim=0) / real.std(dim=0)
    effect = (synthetic.mean(dim=0) - real.mean(dim=0)) / ((synthetic.var(dim=0) + real.var(dim=0)) / 2).sqrt()
    names = template.classes[1:]
    fields_drawn = (read_field(transform(brains, scan.name, template.name, "T1w"))[0] for scan in generated)
    registration = {"subjects": len(subjects), **mean, "folded_voxels": int(sum(s["folded_voxels"] for s in subjects))}
    registration["error_reduction"] = 1 - mean["error_mm"] / mean["error_before_mm"]
    registration["dice_gain"] = mean["dice"] - mean["dice_before"]
    generation = {
        "samples": len(generated),
        "folded_voxels": sum(int(folded(field[None])[0]) for field in fields_drawn),
        "sd_ratio_median": float(ratio.median()),
        "sd_ratio": dict(zip(names, ratio.tolist(), strict=True)),
        "cohens_d": dict(zip(names, effect.tolist(), strict=True)),
    }
    metrics = {"registration": registration, "generation": generation}
    return Result(metrics, subjects, (real, synthetic), simulated, generated, fields, template)
