"""What stage 2 writes for a sample."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cortexgen.data.template import Template
from cortexgen.io import Grid, write_field, write_json, write_volume
from cortexgen.io.bids import anat, derivative, sha256, sidecar, transform
from cortexgen.spatial import identity, warp, warp_labels


def record_path(root: Path, name: str) -> Path:
    """Where a sample's record is kept; written last, so it says that the sample is done."""
    return anat(root, name) / f"{name}_desc-sample_metrics.json"


def warp_template(template: Template, displacement: Tensor) -> tuple[Tensor, Tensor | None]:
    """The template's image and labels `[1, D, H, W]` pulled back by `[3, D, H, W]` on the template's grid."""
    image = warp(template.image[None], displacement[None])[0]
    if template.labels is None:
        return image, None
    positions = identity(displacement.shape[1:]) + displacement[None]
    return image, warp_labels(template.labels[None], positions, len(template.classes))[0][0]


def write_sample(
    root: Path,
    name: str,
    record: dict[str, Any],
    image: Tensor,
    labels: Tensor | None,
    displacement: Tensor,
    velocity: Tensor,
    velocity_grid: Grid,
    template: Template,
    steps: int,
) -> None:
    """Write a brain, its labels and its fields, then the record with each file's hash."""
    grid = template.grid
    source = {"Sources": [template.name]}
    paths = {
        "T1w": derivative(root, name, "T1w"),
        "dseg": derivative(root, name, "dseg"),
        "xfm": transform(root, name, template.name, "T1w"),
        "velocity": derivative(root, name, "field", space=template.name, desc="velocity"),
    }
    write_volume(paths["T1w"], image, grid)
    write_field(paths["xfm"], displacement, grid)
    write_field(paths["velocity"], velocity, velocity_grid)
    if labels is not None:
        write_volume(paths["dseg"], labels, grid, np.uint8 if len(template.classes) < 256 else np.int16)
    for key, path in paths.items():
        extra = {"IntegrationSteps": steps, "SpatialReference": template.name} if key == "velocity" else {}
        write_json(sidecar(path), {"SpatialReference": paths["T1w"].name, **source} | extra)
    record["sha256"] = {path.name: sha256(path) for path in paths.values() if path.is_file()}
    write_json(record_path(root, name), record)
