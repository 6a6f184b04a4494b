"""Gaussian priors of a cohort's fields: of all, and without each part of the subjects."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from cortexgen.data.field_statistics import residuals
from cortexgen.data.fields import FieldDataModule
from cortexgen.diffusion import GaussianPrior, fit_priors


@dataclass(frozen=True)
class FieldPriors:
    """The prior of what covariates leave of the scaled training fields, and for each fold of the subjects the one that
    doesn't know them.

    A prior that knows a subject leaves less over of it than of the next one; what the network learns from would not be
    what it meets.

    Attributes:
        whole: of all fields.
        others: without each fold.
        fold_of: each training scan, by name.
    """

    whole: GaussianPrior
    others: list[GaussianPrior]
    fold_of: dict[str, int]

    @classmethod
    def fit(cls, data: FieldDataModule, contract: Mapping[str, Any], modes: int, folds: int) -> "FieldPriors":
        """Fit all of them at once, or read them where a process did so before.

        Arguments:
            contract: of `field_statistics`.
            modes: of each prior.
            folds: how many; with fewer than 2, or 2 subjects, there is the prior of all alone.
        """
        scans = data.side("train")
        subjects = sorted({scan.subject for scan in scans})
        fold_of = {scan.name: subjects.index(scan.subject) % max(1, folds) for scan in scans}

        def make() -> dict[str, Any]:
            left = (field for fields in residuals(data, contract) for field in fields)
            each = [fold for fold in fold_of.values() for _ in range(1 + data.mirror)]
            folder = data.cache_dir if os.access(data.cache_dir, os.W_OK) else None
            whole, *others = fit_priors(left, each, modes, folder=folder)
            return {"whole": whole.state(), "others": [prior.state() for prior in others]}

        parts = [contract["mean"], torch.as_tensor(contract["scale"]), *contract.get("effects", {}).values()]
        digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
        found = data.remembered("priors", [modes, folds, digest], make)
        return cls(GaussianPrior(**found["whole"]), [GaussianPrior(**state) for state in found["others"]], fold_of)

    def without(self, name: str, device: torch.device) -> GaussianPrior:
        """The one that doesn't know a training scan, on a device, where it stays."""
        return self.others[self.fold_of[name]].to(device)
