"""Reading of scans onto the working grid, and the samples of stage 1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.labels import classes_of, labels_on
from cortexgen.atlas.template import Template
from cortexgen.data.augmentation import Augmentation, augment
from cortexgen.data.cohort import Scan
from cortexgen.data.order import TrainingSamples
from cortexgen.errors import UserError, reason
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.header import NO_CHOICE
from cortexgen.spatial import resample

if TYPE_CHECKING:
    from cortexgen.data.registration import RegistrationDataModule

DECODING = 2  # raised when load_scan or load_labels give something else for the same file


def load_scan(scan: Scan, native: Grid, grid: Grid, choice: HeaderChoice = NO_CHOICE) -> Tensor:
    """A scan's image on the working grid, `[1, D, H, W]` in [0, 1].

    Arguments:
        native: the cohort's grid; the image must lie on it.
        grid: the working grid, another spacing or window of `native`.
        choice: what decides where headers leave a choice.

    Raises:
        UserError: if the file can't be read or lies on another grid.
    """
    image, found = read_volume(scan.image, choice=choice)
    if not found.matches(native):
        raise UserError(f"{scan.image}: its grid is {found}; the cohort's is {native}")
    image = normalize(image, scan.image)
    if grid.matches(native):
        return image
    return resample(image[None], native.torch_affine, grid.shape, grid.torch_affine)[0]


def load_labels(scan: Scan, grid: Grid, template: Template, choice: HeaderChoice = NO_CHOICE) -> Tensor | None:
    """A scan's dseg on a grid as classes of the template, `[1, D, H, W]` int64, or None if either has none.

    Raises:
        UserError: if the file can't be read or holds labels that the template doesn't have.
    """
    if scan.labels is None or not template.classes:
        return None
    labels, found = read_volume(scan.labels, labels=True, choice=choice)
    labels = classes_of(labels, template.numbers or range(len(template.classes)), scan.labels)
    return labels if found.matches(grid) else labels_on(labels, found, grid)


class Scans(TrainingSamples):
    """Pairs of moving and fixed image, with labels where they are asked for."""

    def __init__(
        self,
        data: "RegistrationDataModule",
        scans: Sequence[Scan],
        labelled: bool,
        augmentation: Augmentation = "none",
        pairs: float = 0.0,
    ) -> None:
        self.data, self.scans, self.labelled = data, list(scans), labelled
        self.augmentation, self.pairs = augmentation, pairs

    def __len__(self) -> int:
        return len(self.scans)

    def sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        scan = self.scans[index]
        sample: dict[str, Any] = {"moving": self.data.template.image, "fixed": self.data.image_of(scan)}
        if self.labelled:
            labels = self.data.labels_of(scan)
            if labels is not None and self.data.template.labels is not None:
                sample |= {"moving_labels": self.data.template.labels, "fixed_labels": labels}
        if self.pairs and float(torch.rand((), generator=generator)) < self.pairs:
            other = int(torch.randint(len(self.scans), (), generator=generator))
            sample["moving"] = self.data.image_of(self.scans[other])
        return augment(sample, self.augmentation, generator) | {"name": scan.name}


class Predictions(Dataset):
    """Indices and images to register; an unreadable one comes as its error, so that the others go on."""

    def __init__(self, data: "RegistrationDataModule", indices: Sequence[int]) -> None:
        self.data, self.indices = data, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> dict[str, Any]:
        index = self.indices[place]
        scan = self.data.scans[index]
        if scan.name in self.data.problems:
            return {"index": index, "error": self.data.problems[scan.name]}
        try:
            return {"index": index, "fixed": self.data.image_of(scan).unsqueeze(0)}
        except Exception as error:
            return {"index": index, "error": reason(error)}


def first(batch: list[Any]) -> Any:
    return batch[0]
