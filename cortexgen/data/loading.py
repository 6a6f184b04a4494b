"""Reading of scans onto the working grid, and the samples of stage 1."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.labels import classes_of, labels_on
from cortexgen.atlas.template import Template
from cortexgen.data.augmentation import Augmentation, augment
from cortexgen.data.cache import Cache
from cortexgen.data.cohort import Scan
from cortexgen.data.order import TrainingSamples
from cortexgen.data.patches import PatchSampler
from cortexgen.errors import UserError, reason
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.header import NO_CHOICE
from cortexgen.spatial import resample

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


@dataclass(frozen=True)
class ScanReader:
    """A cohort's images and labels on the working grid, decoded once if there is a cache.

    Attributes:
        native: the cohort's grid.
        grid: the working grid.
        template: on it.
        choice: what decides where headers leave a choice.
        cache: of decoded volumes.
    """

    native: Grid
    grid: Grid
    template: Template
    choice: HeaderChoice
    cache: Cache

    def read(self, scan: Scan, labelled: bool) -> None:
        """Decode a scan, and its labels, unless that was done."""
        if scan.image not in self.cache:
            self.image(scan)
        if labelled and scan.labels is not None and scan.labels not in self.cache:
            self.labels(scan)

    def image(self, scan: Scan) -> Tensor:
        """`[1, D, H, W]` float32."""
        return self.cache.get(scan.image, lambda: load_scan(scan, self.native, self.grid, self.choice).half()).float()

    def labels(self, scan: Scan) -> Tensor | None:
        """`[1, D, H, W]` int64, if there are some."""
        if scan.labels is None or not self.template.classes:
            return None

        def decode() -> Tensor:
            return cast(Tensor, load_labels(scan, self.grid, self.template, self.choice)).to(torch.int16)

        return self.cache.get(scan.labels, decode).long()


@dataclass(frozen=True)
class Scans(TrainingSamples):
    """Pairs of moving and fixed image, with labels where they are asked for, or parts of them."""

    reader: ScanReader
    scans: Sequence[Scan]
    labelled: bool
    augmentation: Augmentation = "none"
    pairs: float = 0.0
    patches: PatchSampler | None = None

    def sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        scan, template = self.scans[index], self.reader.template
        sample: dict[str, Any] = {"moving": template.image, "fixed": self.reader.image(scan)}
        if self.labelled:
            labels = self.reader.labels(scan)
            if labels is not None and template.labels is not None:
                sample |= {"moving_labels": template.labels, "fixed_labels": labels}
        if self.pairs and float(torch.rand((), generator=generator)) < self.pairs:
            other = int(torch.randint(len(self.scans), (), generator=generator))
            sample["moving"] = self.reader.image(self.scans[other])
        sample = augment(sample, self.augmentation, generator) | {"name": scan.name}
        return sample if self.patches is None else self.patches(sample, generator)


@dataclass(frozen=True)
class Predictions(Dataset):
    """Indices and images to register; an unreadable one comes as its error, so that the others go on."""

    reader: ScanReader
    scans: Sequence[Scan]
    problems: Mapping[str, str]

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.scans[index]
        if scan.name in self.problems:
            return {"index": index, "error": self.problems[scan.name]}
        try:
            return {"index": index, "fixed": self.reader.image(scan).unsqueeze(0)}
        except Exception as error:
            return {"index": index, "error": reason(error)}
