"""What a registration leaves on disk: fields, the warped template and its labels, pictures, and a row of metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cortexgen.atlas.colours import write_label_tables
from cortexgen.atlas.fitting import fit_labels
from cortexgen.atlas.labels import numbered
from cortexgen.contracts import Registered, Space, Synthesis
from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io import STEP, write_field, write_json, write_series, write_volume
from cortexgen.io.bids import STRIPPED, Row, derivative, sidecar, template_file, transform
from cortexgen.io.labels import label_type
from cortexgen.metrics.cortex import CORTEX, WHITE
from cortexgen.metrics.overlap import dice
from cortexgen.registration.measures import registration_measures
from cortexgen.registration.propagation import Propagation
from cortexgen.registration.whole import write_whole


def write_registered(
    root: Path,
    scan: Scan,
    result: Registered,
    info: Mapping[str, Any],
    whole: Propagation | None = None,
    frames: int = 0,
    fit: bool = False,
) -> Row:
    """Write what a registration gives; returns the scan's row.

    Arguments:
        info: what else goes into the velocity's sidecar.
        whole: where the images are parts of larger ones, the maps between those, to write the field there too.
        frames: also of the continuous deformation.
        fit: also the labels fitted to the image; the row then has their Dice, too.

    Raises:
        UserError: if labels can't be fitted.
    """
    row: Row = {"status": "ok", "seconds": result.seconds}
    if result.iterations is not None:
        row["refinement_steps"] = result.iterations
    _write_fields(root, scan, result, info)
    if whole is not None:
        write_whole(root, scan, result.velocity, result.velocity_grid, whole)
    if frames:
        _write_frames(root, scan, result, frames)
    if result.synthesis is not None:
        _write_synthesis(root, scan, result.synthesis)
    row |= registration_measures(result)
    return row | _write_fitted(root, scan, result) if fit else row


def _write_fitted(root: Path, scan: Scan, result: Registered) -> Row:
    """The warped labels fitted to the image; returns their Dice, where the image has labels."""
    moving, fixed = result.moving, result.fixed
    if result.labels is None:
        raise UserError("fit_labels: the moving image has no labels")
    labels = fit_labels(fixed.image, result.labels, moving.classes, min(fixed.grid.spacing))
    path = derivative(root, scan.name, "dseg", desc="fitted")
    write_json(sidecar(path), {"SpatialReference": scan.image.name, "Sources": [scan.image.name]})
    written = numbered(labels, moving.numbers)
    write_volume(path, written, fixed.grid, label_type(int(written.max())))
    if fixed.labels is None:
        return {}
    found = dice(labels, fixed.labels, len(moving.classes))
    named = {CORTEX, WHITE}
    row: Row = {"dice_fitted": float(found.nanmean())}
    return row | {f"dice_fitted_{n}": float(d) for n, d in zip(moving.classes[1:], found, strict=True) if n in named}


def _write_fields(root: Path, scan: Scan, result: Registered, info: Mapping[str, Any]) -> None:
    """The fields, the warped image and labels, and their sidecars."""
    name, moving, fixed = scan.name, result.moving, result.fixed
    on_moving, on_fixed = {"SpatialReference": moving.name}, {"SpatialReference": scan.image.name}

    def described(path: Path, content: Mapping[str, Any]) -> Path:
        write_json(sidecar(path), {**content, "Sources": [scan.image.name]})
        return path

    ways = ((moving.name, fixed.name, on_fixed), (fixed.name, moving.name, on_moving))
    for (origin, target, reference), (field, grid) in zip(ways, result.written, strict=True):
        write_field(described(transform(root, name, origin, target), reference), field[0], grid, STEP)
    path = described(derivative(root, name, "T1w", desc="warped"), on_fixed | STRIPPED)
    write_volume(path, result.warped, fixed.grid)
    path = described(derivative(root, name, "map", space=moving.name, desc="logjac"), on_moving)
    write_volume(path, result.log_jacobian[0], moving.grid)
    flow = {"IntegrationSteps": result.steps, "Affine": (fixed.affine @ torch.linalg.inv(moving.affine)).tolist()}
    path = derivative(root, name, "field", space=moving.name, desc="velocity")
    write_field(described(path, on_moving | flow | dict(info)), result.velocity[0], result.velocity_grid)
    if result.labels is not None:
        write_label_tables(root, dict(zip(moving.numbers or range(len(moving.classes)), moving.classes, strict=True)))
        path = described(derivative(root, name, "dseg", desc="warped"), on_fixed)
        labels = numbered(result.labels, moving.numbers)
        write_volume(path, labels, fixed.grid, label_type(int(labels.max())))


def write_template(root: Path, template: Space) -> None:
    """Write the template that is warped and its labels, as fine as they are warped, unless they are there."""
    for suffix, volume in (("dseg", template.labels), ("T1w", template.image)):
        path = template_file(root, template.name, max(template.image_grid.spacing), suffix)
        if volume is None or path.is_file():
            continue
        kind: type = np.float32
        if suffix == "dseg":
            volume = numbered(volume, template.numbers)
            kind = label_type(int(volume.max()))
        write_json(sidecar(path), {"SpatialReference": template.name, "Sources": [template.name]})
        write_volume(path, volume, template.image_grid, kind)


def _write_frames(root: Path, scan: Scan, result: Registered, count: int) -> None:
    """exp(eta v) for eta from 0 to 1: a 4D image on the fixed grid, and an animated picture."""
    from cortexgen.figures.animation import animate  # matplotlib takes a second

    maps = Propagation(result.moving, result.fixed, result.velocity_grid, result.steps)
    fields = [maps.forward(float(eta) * result.velocity) for eta in torch.linspace(0, 1, count)]
    frames = torch.cat([maps.warp(field) for field in fields])
    path = derivative(root, scan.name, "T1w", desc="continuous")
    write_series(path, frames, maps.fixed.grid)
    picture = path.with_name(path.name.replace(".nii.gz", ".gif"))
    animate(picture, frames, maps.fixed.image, maps.fixed.grid, [field - fields[0] for field in fields])


def _write_synthesis(root: Path, scan: Scan, found: Synthesis) -> None:
    """Algorithm 2 on the module's grid: the image, and a figure of the way to it."""
    from cortexgen.figures import synthesis, write_png

    path = derivative(root, scan.name, "T1w", desc="synthesis")
    write_json(sidecar(path), STRIPPED | {"Sources": [scan.image.name]})
    write_volume(path, found.result[None], found.grid)
    write_png(path.with_name(path.name.replace(".nii.gz", ".png")), synthesis(*found))
