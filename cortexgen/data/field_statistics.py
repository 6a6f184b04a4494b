"""What a cohort's fields say before anything is trained: mean, scale, covariates' effects, volumes.

All is summed up in passes over the fields, one at a time, whatever their number.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cortexgen.data.covariates import CovariateEncoder, complete
from cortexgen.data.fields import FieldDataModule
from cortexgen.errors import UserError
from cortexgen.metrics.morphometry import growth_volumes, volume_weights
from cortexgen.runner.progress import tracked
from cortexgen.spatial import antialias, integrate, jacobian_determinant

MAP_SMOOTHING = 5  # voxels, of the map of deviations
FLOOR = 0.1  # of the mean deviation: where nothing moves
SAME = 1e-12  # of the mean square: a variance that is rounding
STEP, BOUND = 0.05, 1.0  # of amplitudes' logarithms
FOLLOWED = 0.5  # share of a person, that the fit follows, from which on what it leaves is no measure
ALIKE = 1e-4  # of the largest: a regressor that others say already


def amplitude_of(values: Tensor, effects: Mapping[str, Tensor]) -> Tensor:
    """How much what covariates leave varies with them, `[B]`: 1 on average, in steps of 5 %, so that few differ.

    Arguments:
        values: regressors `[B, q]`.
        effects: of `field_statistics`.
    """
    if "amplitudes" not in effects:
        return values.new_ones(len(values))
    logs = (values @ effects["amplitudes"].to(values)).clamp(-BOUND, BOUND)
    return torch.exp((logs / STEP).round() * STEP)


def _log_deviations(squares: Tensor, values: Tensor, solve: Tensor) -> Tensor:
    """Logarithms of people's deviations from what covariates say of them, `[N]`, of mean 0.

    A person whom the fit follows by a share h leaves `1 - h` of the variance; one whom it follows for the most part, as
    the only one of a level, says nothing.

    Arguments:
        squares: mean squares of what is left of each person's fields.
        values, solve: regressors `[N, q]`, and their pseudoinverse.
    """
    leverage = (values * solve.T).sum(dim=1) + 1 / len(values)
    sure = (leverage < FOLLOWED) & (squares > 0)
    if not sure.any():
        return torch.zeros_like(squares)
    logs = torch.where(sure, squares / (1 - leverage.clamp(max=FOLLOWED)), 1.0).log() / 2
    return torch.where(sure, logs - logs[sure].mean(), 0.0)


def shown(data: FieldDataModule, what: str) -> Iterator[Tensor]:
    """Of each training scan its field, and the mirror image where that is shown too."""
    total = len(data.side("train"))
    return tracked(data.shown(), what, total, "field", leave=False)


def mean_and_scale(data: FieldDataModule, center: bool, each_voxel: bool) -> tuple[Tensor, Tensor]:
    """The mean field `[3, d, h, w]`, or zero, and the deviation from it: one number, or a smooth map `[3, d, h, w]`.

    Raises:
        UserError: if the fields do not vary.
    """
    count = 0
    total = squares = torch.zeros((), dtype=torch.float64)
    for fields in shown(data, "mean field"):
        count += len(fields)
        total = total + fields.sum(dim=0, dtype=torch.float64)
        squares = squares + fields.double().square().sum(dim=0)
    mean = total / count if center else torch.zeros_like(total)
    variance = (squares / count - mean.square()).clamp(min=0)
    overall = variance.mean().sqrt()
    if overall.square() <= SAME * squares.mean() / count:
        raise UserError("the training fields do not vary")
    if not each_voxel:
        return mean.float(), overall.float()
    smooth = antialias(variance.float()[None], (MAP_SMOOTHING,) * 3)[0]
    return mean.float(), smooth.clamp(min=0).sqrt() + FLOOR * overall.float()


def field_statistics(data: FieldDataModule, names: Sequence[str], center: bool, each_voxel: bool) -> dict[str, Any]:
    """The part of stage 2's contract that comes from the training fields, but for the prior.

    "effects" are those of the covariates on scaled fields, by least squares: "fields" `[q, 3, d, h, w]`, the
    training scans' regressors, gaps filled, as "rows" `[N, q]`, and their "covariance". Rows say that the prior is of
    what covariates leave, see `residuals`; weights of before have none, and their prior is of whole fields.
    "amplitudes" `[q]` are the effects on the logarithm of the deviation of what is left: fields of one scanner's
    images, or of older people, vary more than others'.

    Arguments:
        names: of the covariates.
        center: subtract the mean field.
        each_voxel: scale by a map of deviations instead of one number.
    """
    mean, scale = mean_and_scale(data, center, each_voxel)
    rows = [scan.covariates for scan in data.side("train")]
    encoder = CovariateEncoder.fit(names, rows)
    out: dict[str, Any] = {"mean": mean, "scale": scale, "covariates": encoder.specs}
    labels, classes, steps = data.template.labels, len(data.template.classes), data.info["IntegrationSteps"]
    if not names and labels is None:
        return out

    values, known = encoder.design(encoder.encode(rows)) if names else (torch.zeros(len(rows), 0),) * 2
    covariance = values.T @ values / len(rows)
    solve = torch.linalg.pinv(values.double(), rtol=ALIKE)
    effects = torch.zeros(values.shape[1], *mean.shape, dtype=torch.float64)
    if labels is not None:
        weights = volume_weights(labels, data.template.grid, data.grid, classes).double()
    volumes = []
    for i, fields in enumerate(shown(data, "covariates and volumes")):
        # A mirror image has its scan's covariates, and the growth of that mirrored.
        effects += solve[:, i].view(-1, 1, 1, 1, 1) * ((fields - mean) / scale).mean(dim=0)
        if labels is not None:
            growth = jacobian_determinant(integrate(fields[:1], steps, inverse=True))
            growth = torch.cat([growth, growth.flip(-1)][: len(fields)])
            volumes.append(growth_volumes(growth, weights, data.grid.voxel_volume))
    if names:
        filled, _ = complete(values, known, covariance)
        out["effects"] = {"fields": effects.float(), "covariance": covariance, "rows": filled}
        left = torch.stack([field.double().square().mean() for field in residuals(data, out)])
        out["effects"]["amplitudes"] = (solve @ _log_deviations(left, values.double(), solve)).float()
    if labels is not None:
        logs = torch.cat(volumes).log()
        out |= {"log_volume_mean": logs.mean(dim=0), "log_volume_std": logs.std(dim=0)}
    return out


def residuals(data: FieldDataModule, contract: Mapping[str, Any]) -> Iterator[Tensor]:
    """What the prior is of: each training scan's scaled fields, `[k, 3, d, h, w]`, less what its covariates say, over
    the amplitude that they say.

    Arguments:
        contract: of `field_statistics`; of weights of before, which subtract nothing, or know of no amplitudes.
    """
    mean, scale, effects = contract["mean"], torch.as_tensor(contract["scale"]), contract.get("effects", {})
    encoder = CovariateEncoder(contract["covariates"])
    for scan, fields in zip(data.side("train"), shown(data, "prior"), strict=True):
        scaled = (fields - mean) / scale
        if "rows" in effects:
            row, _ = complete(*encoder.design(encoder.encode([scan.covariates])), effects["covariance"])
            scaled -= torch.einsum("q,qcdhw->cdhw", row[0], effects["fields"])
            scaled /= amplitude_of(row, effects)
        yield scaled
