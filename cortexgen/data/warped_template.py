"""The template as the field of a registration warps it, that field as coarse as stage 2 draws them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.data.fields import coarse_field, coarser, sidecar_of
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field
from cortexgen.spatial import identity, integrate, resample_field, warp, warp_labels


def read_sidecar(field: Path, template: str) -> dict[str, Any]:
    """What a velocity field's sidecar says.

    Raises:
        UserError: if it can't be read, or is of another template than the one of that hash.
    """
    info = sidecar_of(field)
    if info["TemplateHash"] != template:
        raise UserError(f"{field}: starts from template {info['TemplateHash']:.12}, expected {template:.12}")
    return info


def displacement_of(field: Path, template: str, spacing: float, grid: Grid) -> Tensor:
    """Of the velocity in a file that stage 1 wrote, in voxels of `spacing` millimetres, where it is finer.

    Arguments:
        field: `*_desc-velocity_field.nii.gz`, with its sidecar.
        template: hash of the one that it starts from.
        spacing: in millimetres.
        grid: of the image that was registered.

    Returns:
        `[1, 3, D, H, W]` in voxels of `grid`, on it.

    Raises:
        UserError: if it is of another template, or can't be read.
    """
    info = read_sidecar(field, template)
    velocity, written = read_field(field)
    coarse = coarser(written, spacing)
    flow = integrate(coarse_field(velocity, written, coarse)[None], info["IntegrationSteps"])
    still = torch.eye(4, dtype=torch.float64)
    affine = torch.tensor(info.get("Affine", still.tolist()), dtype=torch.float64)
    around = () if torch.equal(affine, still) else (torch.linalg.inv(affine), still)
    return resample_field(flow, coarse.torch_affine, grid.shape, grid.torch_affine, *around)


def warped_template(template: Template, displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Image and labels `[1, D, H, W]` of a template under a displacement on its grid, as generation warps them."""
    assert template.labels is not None
    image = warp(template.image[None], displacement)[0]
    positions = identity(image.shape[1:]) + displacement
    labels, _ = warp_labels(template.labels[None], positions, len(template.classes))
    return image, labels[0]
