"""What generators of images train on: the images of a cohort, as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from cortexgen.data.augmentation import Augmentation, augment
from cortexgen.data.cohort import Scan
from cortexgen.data.cohorts import Roots
from cortexgen.data.covariates import CovariateEncoder
from cortexgen.data.loading import ScanReader
from cortexgen.data.order import TrainingSamples
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.io import Grid


class ImageDataModule(RegistrationDataModule):
    """A cohort's images, each with its subject's covariates.

    Arguments:
        root: the cohort, or several: BIDS derivatives of skull-stripped T1w in template space on one grid.
        mirror: show each subject's mirror image half of the time.
        options: of RegistrationDataModule; `crop: brain` works on the template brain's bounding box.
    """

    def __init__(self, root: Roots, mirror: bool = True, **options: Any) -> None:
        super().__init__(root=root, augmentation="mirror" if mirror else "none", **options)

    @property
    def image_grid(self) -> Grid:
        """Of whole images, of which the working grid may be a part."""
        return self.native.at_spacing(self.spacing) if self.spacing else self.native

    def contract(self) -> dict[str, Any]:
        """What weights trained on these images depend on, in plain types."""
        return super().contract() | {"image_grid": self.image_grid.to_dict()}

    def people(self, covariates: Sequence[str]) -> list[dict[str, Any]]:
        """These covariates of each training scan, without names."""
        rows = [scan.covariates for scan in self.side("train")]
        return [{k: v for k, v in row.items() if k in covariates and v is not None} for row in rows]

    def encoder(self, covariates: Sequence[str]) -> CovariateEncoder:
        """Of covariates of the training scans."""
        return CovariateEncoder.fit(covariates, self.people(covariates))

    def samples(self, scans: Sequence[Scan], training: bool = False) -> "Images":  # type: ignore[override]
        """Images with covariates; some mirrored in training."""
        return Images(self.reader, scans, self.augmentation if training else "none")

    def predict_dataloader(self) -> DataLoader:
        """Of the generator that the running trainer has: it draws, and asks no image."""
        return self.trainer.lightning_module.predict_dataloader()  # type: ignore[union-attr, no-any-return]


@dataclass(frozen=True)
class Images(TrainingSamples):
    """Of each scan "image", `[1, D, H, W]` in [0, 1], "covariates" and "name"."""

    reader: ScanReader
    scans: Sequence[Scan]
    augmentation: Augmentation = "none"

    def sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        scan = self.scans[index]
        image = augment({"fixed": self.reader.image(scan)}, self.augmentation, generator)["fixed"]
        covariates: Mapping[str, Any] = scan.covariates
        return {"image": image, "name": scan.name, "covariates": dict(covariates)}
