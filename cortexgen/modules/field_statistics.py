"""What a cohort's fields say before anything is trained: mean, scale, covariates' effects, prior, volumes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cortexgen.data.covariates import CovariateEncoder
from cortexgen.data.fields import FieldDataModule
from cortexgen.diffusion import GaussianPrior
from cortexgen.errors import UserError
from cortexgen.metrics import regional_volumes, volume_weights
from cortexgen.spatial import antialias

MAP_SMOOTHING = 5  # voxels, of the map of deviations
FLOOR = 0.1  # of the mean deviation: where nothing moves


def scale_of(centred: Tensor, each_voxel: bool) -> Tensor:
    """The deviation of fields `[N, 3, d, h, w]`: one number, or a smooth map `[3, d, h, w]`.

    Raises:
        UserError: if the fields do not vary.
    """
    overall = centred.square().mean().sqrt()
    if overall == 0:
        raise UserError("the training fields do not vary")
    if not each_voxel:
        return overall
    variance = antialias(centred.square().mean(dim=0, keepdim=True), (MAP_SMOOTHING,) * 3)[0]
    return variance.clamp(min=0).sqrt() + FLOOR * overall


def effects_of(scaled: Tensor, design: Tensor) -> dict[str, Tensor]:
    """Least squares of fields `[N, 3, d, h, w]` on regressors `[N, q]` of mean 0: "fields" `[q, 3, d, h, w]`, and the
    "covariance" of the regressors."""
    design = design - design.mean(dim=0)
    solution = torch.linalg.lstsq(design.double(), scaled.flatten(1).double()).solution
    return {
        "fields": solution.float().view(-1, *scaled.shape[1:]),
        "covariance": (design.T @ design / len(design)).float(),
    }


def cross_fitted(data: FieldDataModule, scaled: Tensor, modes: int, folds: int) -> dict[str, GaussianPrior]:
    """For each training scan's name a prior that was fitted without its subject and a share of the others.

    A prior that knows a subject leaves less over of it than of the next one; what the network learns from would not be
    what it meets.

    Arguments:
        scaled: of `FieldDataModule.training_fields`, scaled.
    """
    scans = data.side("train")
    subjects = sorted({scan.subject for scan in scans})
    fold_of = {subject: k % folds for k, subject in enumerate(subjects)}
    repeats = len(scaled) // len(scans)
    places = torch.tensor([fold_of[scan.subject] for scan in scans] * repeats)
    priors = [GaussianPrior.fit(scaled[places != fold], modes) for fold in range(min(folds, len(subjects)))]
    return {scan.name: priors[fold_of[scan.subject]] for scan in scans}


def field_statistics(
    data: FieldDataModule, names: Sequence[str], center: bool, each_voxel: bool, modes: int
) -> dict[str, Any]:
    """The part of stage 2's contract that comes from the training fields.

    Arguments:
        names: of the covariates.
        center: subtract the mean field.
        each_voxel: scale by a map of deviations instead of one number.
        modes: of the prior, 0 for no prior.
    """
    fields = data.training_fields()
    mean = fields.mean(dim=0) if center else torch.zeros_like(fields[0])
    scale = scale_of(fields - mean, each_voxel)
    scaled = (fields - mean) / scale
    rows = [scan.covariates for scan in data.side("train")]
    encoder = CovariateEncoder.fit(names, rows)
    out: dict[str, Any] = {"mean": mean, "scale": scale, "covariates": encoder.specs}
    if names:
        design, _ = encoder.design(encoder.encode(rows * (len(fields) // len(rows))))
        out["effects"] = effects_of(scaled, design)
    if modes:
        out["prior"] = GaussianPrior.fit(scaled, modes).state()
    if data.template.labels is not None:
        classes = len(data.template.classes)
        weights = volume_weights(data.template.labels, data.template.grid, data.grid, classes)
        steps, voxel = data.info["IntegrationSteps"], data.grid.voxel_volume
        logs = torch.cat([regional_volumes(f[None], weights, voxel, steps) for f in fields]).log()
        out |= {"log_volume_mean": logs.mean(dim=0), "log_volume_std": logs.std(dim=0)}
    return out
