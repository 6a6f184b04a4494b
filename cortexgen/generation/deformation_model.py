"""The classical yardstick: principal components of velocity fields with Gaussian coefficients."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortexgen.atlas.template import Template
from cortexgen.data.covariates import HEAD_SIZE, CovariateEncoder
from cortexgen.data.field_statistics import field_statistics, residuals
from cortexgen.data.fields import FieldDataModule
from cortexgen.data.registered import recorded_sides
from cortexgen.errors import UserError
from cortexgen.generation.velocities import Velocities
from cortexgen.io.tables import COHORT
from cortexgen.nets.state import state_hash
from cortexgen.runner.threads import single_thread
from cortexgen.spatial.precision import full_precision


class StatisticalDeformationModel(nn.Module, Velocities):
    """`v = mean + sum_k s_k g_k e_k`, g_k ~ N(0, 1), over all principal components of a cohort's velocities.

    (Rueckert, Frangi & Schnabel, IEEE TMI 2003, on stationary velocities.) Covariates shift the mean, the components
    are of what they leave. It draws nothing that is not a combination of the training fields.

    Arguments:
        data: a cohort of registered subjects, set up.
        covariates: columns of participants.tsv to condition on.
    """

    @single_thread()
    def __init__(self, data: FieldDataModule, covariates: tuple[str, ...] = ()) -> None:
        super().__init__()
        statistics = field_statistics(data, covariates, center=True, each_voxel=False)
        self.contract = data.contract() | statistics
        self.template = data.template
        left = torch.cat(list(residuals(data, statistics)))
        self.register_buffer("deviations", left / len(left) ** 0.5)

    @property
    def device(self) -> torch.device:
        """That draws."""
        return next(self.buffers()).device

    def weights_hash(self) -> str:
        return state_hash(self)

    @torch.no_grad()
    @single_thread()
    @full_precision
    def samples(self, indices: range, attempt: int, conditions: Sequence[Mapping[str, Any]]) -> Tensor:
        return torch.stack([self._sample(k, attempt, c) for k, c in zip(indices, conditions, strict=True)])

    def _sample(self, index: int, attempt: int, conditions: Mapping[str, Any]) -> Tensor:
        deviations = self.get_buffer("deviations")
        # A Gaussian combination of the fields themselves has their covariance, as the components' has.
        weights = torch.randn(len(deviations), generator=self.random(index, attempt)).to(deviations)
        x = torch.einsum("n,ncdhw->cdhw", weights, deviations)
        if self.encoder.specs:
            vectors = self.encoder.encode([conditions], self.device)
            drawn = self.drawn([index], attempt, vectors)
            x = self.effect(vectors, drawn)[0] + self.amplitude(vectors, drawn) * x
        return self.restored(x).cpu()


@single_thread()
def components(fields: Path, template: Template | None = None, **options: Any) -> StatisticalDeformationModel:
    """The model of a folder of registered fields, with those of its covariates that generation knows by name.

    Arguments:
        fields: what stage 1 predicted; all of them are taken, unless some are held out.
        options: as of `Velocities.take`.
    """
    data = FieldDataModule(fields, val=None if recorded_sides(fields) else 0.0)
    data.setup("fit")
    rows = [scan.covariates for scan in data.side("train")]
    names = []
    for name in ("age", "sex", COHORT, HEAD_SIZE):
        with suppress(UserError):
            CovariateEncoder.fit([name], rows)
            names.append(name)
    model = StatisticalDeformationModel(data, tuple(names))
    return model.take(template=template or data.template, **options)
