"""Stage 1's output: fields, the warped template and its labels, and a row of metrics for each subject."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.data.cohort import Scan
from cortexgen.data.intensity import normalize
from cortexgen.data.registration import load_labels
from cortexgen.data.template import Template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume, write_field, write_json, write_volume
from cortexgen.io.bids import Row, anat, derivative, sidecar, transform, write_tsv
from cortexgen.metrics import dice, psnr, ssim
from cortexgen.spatial import folded, identity, integrate, log_jacobian, resample_field, warp, warp_labels

if TYPE_CHECKING:
    from cortexgen.modules.diffusemorph import DiffuseMorphModule


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
) -> Row:
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
    row: Row = {
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


class RegistrationWriter:
    """Registers the scans of the running trainer's data one by one, and writes the results.

    Arguments:
        module: with trained weights, in a running trainer.

    Raises:
        UserError: if the output folder holds something else.
    """

    def __init__(self, module: "DiffuseMorphModule") -> None:
        self.module, self.data = module, module.data
        self.failures: dict[str, str] = {}
        self.steps = module.h.integration_steps
        self.velocity_grid = self.data.grid.coarse(module.h.field_downsample)
        # Results lie on the images' own grid, except where only a slab was worked on.
        self.slab = isinstance(self.data.crop, list)
        self.template = self.data.template if self.slab else self.data.original.to(self.data.native)
        self.root = module.open_output("template to subject registration", {"refine": module.refine})
        self.info = {
            "Template": self.template.name,
            "TemplateHash": self.template.hash,
            "ImageGrid": self.template.grid.to_dict(),
            "Preprocessing": module.contract.get("preprocessing", []),
        }

    def write(self, batch: Mapping[str, Any]) -> Row | None:
        """Register the scan of a batch unless it is done; returns its row of registration.tsv."""
        scan = self.data.scans[batch["index"]]
        if row_path(self.root, scan.name).is_file():
            return None
        row: Row = {"participant_id": scan.name, "split": self.data.split[scan.subject]}
        try:
            if "error" in batch:
                raise UserError(batch["error"])
            target = self._target(scan)
        except UserError as error:
            self.failures[scan.name] = str(error)
            return row | {"status": f"failed: {error}"}
        start = time.perf_counter()
        moving = self.data.template.image[None].to(batch["fixed"].device)
        velocity = self.module.register(moving, batch["fixed"]).velocity[0].cpu()
        row |= {"status": "ok", "seconds": round(time.perf_counter() - start, 3)}
        row |= write_registration(self.root, scan, velocity, self.velocity_grid, self.steps, target, self.info)
        write_json(row_path(self.root, scan.name), row)
        return row

    def _target(self, scan: Scan) -> Target:
        grid = self.template.grid
        image = self.data.image_of(scan) if self.slab else normalize(read_volume(scan.image)[0], scan.image)
        return Target(image, load_labels(scan, grid, len(self.template.classes)), grid, self.template)

    def close(self) -> dict[str, str]:
        """Join the rows of all processes to registration.tsv; returns the scans that failed, with their reason."""
        trainer = self.module.trainer
        parts: list[dict[str, str]] = [self.failures]
        if trainer.world_size > 1:
            parts = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, self.failures)
        failures = {name: reason for part in parts for name, reason in part.items()}
        if trainer.is_global_zero:
            paths = (row_path(self.root, scan.name) for scan in self.data.scans)
            rows: list[Row] = [json.loads(path.read_text()) for path in paths if path.is_file()]
            rows += [{"participant_id": name, "status": f"failed: {reason}"} for name, reason in failures.items()]
            write_tsv(self.root / "registration.tsv", rows)
            subjects = {scan.subject: {"participant_id": scan.subject, **scan.covariates} for scan in self.data.scans}
            write_tsv(self.root / "participants.tsv", subjects.values())
        return failures
