"""What stage 1 writes for a subject."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.data.cohort import Scan
from cortexgen.data.template import Template
from cortexgen.io import Grid, write_field, write_json, write_volume
from cortexgen.io.bids import anat, derivative, sidecar, transform
from cortexgen.metrics import dice, psnr, ssim
from cortexgen.spatial import folded, identity, integrate, log_jacobian, resample_field, warp, warp_labels


@dataclass(frozen=True)
class Target:
    """The image that the template is warped onto.

    Attributes:
        image: `[1, D, H, W]` in [0, 1].
        labels: `[1, D, H, W]` or None.
        grid: of both; results are written on it.
        template: on the same grid.
    """

    image: Tensor
    labels: Tensor | None
    grid: Grid
    template: Template


def row_path(root: Path, scan: str) -> Path:
    """Where a scan's row of registration.tsv is kept; written last, so it says that the scan is done."""
    return anat(root, scan) / f"{scan}_desc-registration_metrics.json"


def write_registration(
    root: Path, scan: Scan, velocity: Tensor, velocity_grid: Grid, steps: int, target: Target, info: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the fields, the warped template and its labels, and return the scan's metrics.

    Arguments:
        velocity: `[3, d, h, w]` on `velocity_grid`.
        info: what goes into the velocity's sidecar (template, hash, image grid, ...).

    Returns:
        Similarity and Dice before and after, folded voxels, deviation of log |J|, mean |u| in the brain (mm).
    """
    template, grid = target.template, target.grid
    affines = (velocity_grid.torch_affine, grid.shape, grid.torch_affine)
    forward = resample_field(integrate(velocity[None], steps), *affines)
    inverse = resample_field(integrate(-velocity[None], steps), *affines)
    growth = log_jacobian(inverse)[0]
    warped = warp(template.image[None], forward)[0]

    paths = {
        "forward": transform(root, scan.name, template.name, "T1w"),
        "inverse": transform(root, scan.name, "T1w", template.name),
        "warped": derivative(root, scan.name, "T1w", desc="warped"),
        "dseg": derivative(root, scan.name, "dseg", desc="warped"),
        "logjac": derivative(root, scan.name, "map", space=template.name, desc="logjac"),
        "velocity": derivative(root, scan.name, "field", space=template.name, desc="velocity"),
    }
    sources = {"Sources": [scan.image.name]}
    in_template = {"SpatialReference": template.name}
    write_field(paths["forward"], forward[0], grid)
    write_field(paths["inverse"], inverse[0], grid)
    write_volume(paths["warped"], warped, grid)
    write_volume(paths["logjac"], growth, grid)
    write_field(paths["velocity"], velocity, velocity_grid)
    for key in ("forward", "warped"):
        write_json(sidecar(paths[key]), {"SpatialReference": scan.image.name, **sources})
    for key in ("inverse", "logjac"):
        write_json(sidecar(paths[key]), in_template | sources)
    write_json(sidecar(paths["velocity"]), in_template | sources | {"IntegrationSteps": steps} | dict(info))

    brain = template.mask
    distance = torch.linalg.vector_norm(_millimetres(forward[0], grid), dim=0, keepdim=True)
    row: dict[str, Any] = {
        "ssim_before": ssim(template.image, target.image),
        "ssim": ssim(warped, target.image),
        "psnr_before": psnr(template.image, target.image),
        "psnr": psnr(warped, target.image),
        "mean_displacement_mm": float(distance[brain].mean()),
        "sd_log_jacobian": float(growth[brain].std()),
        "folded_voxels": int(folded(forward)[0]) + int(folded(inverse)[0]),
    }
    if template.labels is not None:
        positions = identity(grid.shape) + forward
        labels, _ = warp_labels(template.labels[None], positions, len(template.classes))
        write_volume(paths["dseg"], labels[0], grid, np.uint8 if len(template.classes) < 256 else np.int16)
        write_json(sidecar(paths["dseg"]), {"SpatialReference": scan.image.name, **sources})
        if target.labels is not None:
            before = dice(template.labels, target.labels, len(template.classes))
            after = dice(labels[0], target.labels, len(template.classes))
            row |= {"dice_before": float(before.nanmean()), "dice": float(after.nanmean())}
            row |= {f"dice_{name}": float(d) for name, d in zip(template.classes[1:], after, strict=True)}
    return {k: None if v != v else v for k, v in row.items()}


def _millimetres(field: Tensor, grid: Grid) -> Tensor:
    return torch.einsum("ij,jdhw->idhw", torch.from_numpy(grid.affine[:3, :3]).float(), field)


def read_rows(root: Path, scans: list[Scan]) -> list[dict[str, Any]]:
    """The rows of all scans that are done, in the cohort's order."""
    paths = (row_path(root, scan.name) for scan in scans)
    return [json.loads(path.read_text()) for path in paths if path.is_file()]
