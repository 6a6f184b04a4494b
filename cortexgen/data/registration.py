"""What stage 1 trains on: the template, and each subject of a cohort."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cortexgen.data.augmentation import Augmentation, augment
from cortexgen.data.cohort import Scan, read_cohort, split_subjects
from cortexgen.data.intensity import normalize
from cortexgen.data.template import MNI152, Template, load_template, resample_labels
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_grid, read_volume
from cortexgen.spatial import resample


def brain_box(template: Template, margin: float = 8.0) -> Grid:
    """The part of a template's grid that holds its brain and `margin` millimetres around it.

    Sides are odd where the grid's are, so that nested coarse grids end where it ends; a symmetric grid stays symmetric.
    """
    low, high = [], []
    for axis, (n, spacing) in enumerate(zip(template.grid.shape, template.grid.spacing, strict=True)):
        inside = torch.nonzero(template.mask.movedim(1 + axis, 0).flatten(1).any(dim=1)).flatten()
        reach = int(margin / spacing) + 1
        a, b = max(0, int(inside.min()) - reach), min(n - 1, int(inside.max()) + reach)
        if axis == 2 and template.grid.is_symmetric():
            a, b = min(a, n - 1 - b), max(b, n - 1 - a)
        elif (b - a) % 2:
            a, b = (a - 1, b) if a > 0 else (a, min(b + 1, n - 1))
        low.append(a)
        high.append(b)
    return template.grid.box(low, high)


def load_scan(scan: Scan, native: Grid, grid: Grid) -> Tensor:
    """A scan's image on the working grid, `[1, D, H, W]` in [0, 1].

    Arguments:
        native: the cohort's grid; the image must lie on it.
        grid: the working grid, another spacing or window of `native`.

    Raises:
        UserError: if the file can't be read or lies on another grid.
    """
    image, found = read_volume(scan.image)
    if not found.matches(native):
        raise UserError(f"{scan.image}: its grid is {found}; the cohort's is {native}")
    image = normalize(image, scan.image)
    if grid.matches(native):
        return image
    return resample(image[None], native.torch_affine, grid.shape, grid.torch_affine)[0]


def load_labels(scan: Scan, grid: Grid, classes: int) -> Tensor | None:
    """A scan's dseg on a grid, `[1, D, H, W]` int64, or None if it has none.

    Raises:
        UserError: if the file can't be read or holds labels that the template doesn't have.
    """
    if scan.labels is None or classes == 0:
        return None
    labels, found = read_volume(scan.labels, labels=True)
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(f"{scan.labels}: label {int(labels.max())} is not among the template's {classes} classes")
    return labels if found.matches(grid) else resample_labels(labels, found, grid, classes)


class _Scans(Dataset):
    """Samples of stage 1; images are kept as float16 after their first reading if `cache`."""

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

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.scans[index]
        sample: dict[str, Any] = {"moving": self.data.template.image, "fixed": self.data.image_of(scan)}
        if self.labelled:
            labels = self.data.labels_of(scan)
            if labels is not None and self.data.template.labels is not None:
                sample |= {"moving_labels": self.data.template.labels, "fixed_labels": labels}
        if self.pairs and float(torch.rand(())) < self.pairs:
            sample["moving"] = self.data.image_of(self.scans[int(torch.randint(len(self.scans), ()))])
        return augment(sample, self.augmentation) | {"name": scan.name}


class _Predictions(Dataset):
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
        except UserError as error:
            return {"index": index, "error": str(error)}


def _first(batch: list[Any]) -> Any:
    return batch[0]


class RegistrationDataModule(LightningDataModule):
    """Pairs (template, subject) of a cohort of skull-stripped T1w in template space.

    Arguments:
        root: BIDS derivatives with `sub-*/[ses-*/]anat/*_T1w.nii.gz`, all on one grid, and participants.tsv.
        template: "MNI152NLin2009aSym", or a NIfTI file.
        template_labels: the dseg of a template file, on its grid.
        label_table: names of its classes, a tab-separated file with columns index and name.
        image: file name pattern of the images.
        labels: file name pattern of their dseg, used for validation only.
        spacing: work at this voxel size in millimetres instead of the cohort's own.
        crop: work inside the template brain's bounding box ("brain"), faster and with results on the whole image all
            the same; or on the central part of this size (D, H, W), padded where it is larger, with results there.
        val: validation subjects, a fraction below 1 or a number.
        test: test subjects, likewise.
        val_subjects: explicit validation subjects.
        test_subjects: explicit test subjects.
        split_seed: of the random split.
        augmentation: "none", "mirror" (left-right) or "paper" (flips and quarter turns).
        pairs: share of training pairs that take another training subject as moving image instead of the template.
        batch_size: of training.
        only: predict the scans of one side of the split instead of all.
        num_workers: loading processes.
        cache: keep decoded images in memory (float16).
    """

    def __init__(
        self,
        root: Path,
        template: str = MNI152,
        template_labels: Path | None = None,
        label_table: Path | None = None,
        image: str = "*_T1w.nii*",
        labels: str = "*_dseg.nii*",
        spacing: float | None = None,
        crop: Literal["brain"] | list[int] | None = None,
        val: float = 0.1,
        test: float = 0.0,
        val_subjects: list[str] | None = None,
        test_subjects: list[str] | None = None,
        split_seed: int = 0,
        augmentation: Augmentation = "none",
        pairs: float = 0.0,
        batch_size: int = 1,
        only: Literal["train", "val", "test"] | None = None,
        num_workers: int = 0,
        cache: bool = True,
    ) -> None:
        super().__init__()
        self.root, self.only = Path(root), only
        self.template_source = (template, template_labels, label_table)
        self.patterns = (image, labels)
        self.spacing, self.crop = spacing, crop
        self.splitting: dict[str, Any] = {
            "val": val,
            "test": test,
            "val_subjects": val_subjects,
            "test_subjects": test_subjects,
            "seed": split_seed,
        }
        self.augmentation, self.pairs = augmentation, pairs
        self.batch_size, self.num_workers = batch_size, num_workers
        self._cache: dict[str, Tensor] | None = {} if cache else None
        self.problems: dict[str, str] = {}
        self.scans: list[Scan] = []

    def setup(self, stage: str) -> None:
        """Read the cohort's headers, choose the working grid and the split, load what fits the cache."""
        if isinstance(self.crop, list) and (len(self.crop) != 3 or min(self.crop) < 2):
            raise UserError(f"crop: expected three sizes D, H, W of 2 and more, got {self.crop}")
        if not 0 <= self.pairs <= 1:
            raise UserError(f"pairs: expected a share between 0 and 1, got {self.pairs}")
        if self.spacing is not None and self.spacing <= 0:
            raise UserError(f"spacing: expected millimetres above zero, got {self.spacing}")
        if not self.scans:
            self.scans = read_cohort(self.root, *self.patterns)
            self.native = self._common_grid()
            self.original = load_template(*self.template_source)
            grid = self.native.at_spacing(self.spacing) if self.spacing else self.native
            if self.crop == "brain":
                grid = brain_box(self.original.to(grid))
            elif self.crop:
                grid = grid.window(self.crop)
            self.grid = grid
            self.template = self.original.to(grid)
            self.split = split_subjects([s.subject for s in self.scans], **self.splitting)
        if self.augmentation == "mirror" and not self.grid.is_symmetric():
            raise UserError(f"mirroring needs a grid symmetric about x = 0; the working grid is {self.grid}")
        if stage != "predict" and self._cache is not None:
            self._fill({"fit": ("train", "val"), "validate": ("val",), "test": ("test", "val")}[stage])
        if stage == "fit" and not self.side("train"):
            raise UserError(f"{self.root}: no readable subject is left to train on")

    def _common_grid(self) -> Grid:
        """The grid of most scans; the others become problems."""
        groups: list[tuple[Grid, list[Scan]]] = []
        for scan in self.scans:
            try:
                grid = read_grid(scan.image)
            except UserError as error:
                self._leave_out(scan, str(error))
                continue
            for known, members in groups:
                if known.matches(grid):
                    members.append(scan)
                    break
            else:
                groups.append((grid, [scan]))
        if not groups:
            raise UserError(
                f"{self.root}: none of its {len(self.scans)} images can be read: {next(iter(self.problems.values()))}"
            )
        groups.sort(key=lambda group: -len(group[1]))
        common = groups[0][0]
        for grid, members in groups[1:]:
            for scan in members:
                self._leave_out(scan, f"{scan.image}: its grid is {grid}; the cohort's is {common}")
        return common

    def _leave_out(self, scan: Scan, reason: str) -> None:
        self.problems[scan.name] = reason
        warnings.warn(f"{scan.name} is left out: {reason}", stacklevel=2)

    def _fill(self, sides: Sequence[str]) -> None:
        """Read the scans of some sides once, so that those that can't be read are known before training."""
        scans = [s for side in sides for s in self.side(side) if s.name not in (self._cache or {})]
        for scan in tqdm(scans, desc="reading images", unit="scan", disable=None, leave=False):
            try:
                self.image_of(scan)
                if self.split[scan.subject] != "train":
                    self.labels_of(scan)
            except UserError as error:
                self._leave_out(scan, str(error))

    def image_of(self, scan: Scan) -> Tensor:
        """A scan's image on the working grid, `[1, D, H, W]` float32."""
        if self._cache is not None and scan.name in self._cache:
            return self._cache[scan.name].float()
        image = load_scan(scan, self.native, self.grid).half()  # rounded alike, cached or not
        if self._cache is not None:
            self._cache[scan.name] = image
        return image.float()

    def labels_of(self, scan: Scan) -> Tensor | None:
        """A scan's labels on the working grid, `[1, D, H, W]` int64, if it has some."""
        key = f"{scan.name} labels"
        if self._cache is not None and key in self._cache:
            return self._cache[key].long()
        labels = load_labels(scan, self.grid, len(self.template.classes))
        if labels is not None and self._cache is not None:
            self._cache[key] = labels.to(torch.int16)
        return labels

    def side(self, side: str) -> list[Scan]:
        """The usable scans of "train", "val" or "test"."""
        return [s for s in self.scans if self.split[s.subject] == side and s.name not in self.problems]

    def contract(self) -> dict[str, Any]:
        """What weights trained on these data depend on, in plain types."""
        description = self.root / "dataset_description.json"
        generated = json.loads(description.read_text()).get("GeneratedBy", []) if description.is_file() else []
        template = {"name": self.template.name, "hash": self.template.hash, "classes": list(self.template.classes)}
        return {"template": template, "grid": self.grid.to_dict(), "preprocessing": generated}

    def _loader(self, scans: Sequence[Scan], labelled: bool, train: bool = False) -> DataLoader:
        dataset = _Scans(self, scans, labelled, *((self.augmentation, self.pairs) if train else ()))
        size = self.batch_size if train else 1
        return DataLoader(
            dataset, size, shuffle=train, num_workers=self.num_workers, persistent_workers=self.num_workers > 0
        )

    def train_dataloader(self) -> DataLoader:
        """Shuffled training pairs, without labels."""
        return self._loader(self.side("train"), labelled=False, train=True)

    def val_dataloader(self) -> DataLoader:
        """Validation pairs with labels where there are some."""
        return self._loader(self.side("val"), labelled=True)

    def test_dataloader(self) -> DataLoader:
        """Test pairs; the validation pairs if the split has no test set."""
        return self._loader(self.side("test") or self.side("val"), labelled=True)

    def predict_dataloader(self) -> DataLoader:
        """Every scan of the cohort, or of one side, one by one."""
        chosen = [i for i, s in enumerate(self.scans) if self.only in (None, self.split[s.subject])]
        dataset = _Predictions(self, chosen)
        return DataLoader(dataset, batch_size=1, collate_fn=_first, num_workers=self.num_workers)
