"""What stage 3 trains on: each subject's image beside the template, and its labels, that registration warped to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cortexgen.atlas.fitting import fit_labels
from cortexgen.atlas.labels import classes_of, labels_on
from cortexgen.data.augmentation import augment
from cortexgen.data.cohort import Scan
from cortexgen.data.cohorts import Roots
from cortexgen.data.covariates import CovariateEncoder
from cortexgen.data.order import TrainingSamples
from cortexgen.data.patches import PatchSampler
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.data.style import STYLE, measure_style
from cortexgen.data.warped_template import displacement_of, read_sidecar, warped_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_volume
from cortexgen.io.bids import derivative
from cortexgen.runner.progress import tracked
from cortexgen.spatial import resample

EXTENT = 100.0  # mm, that a place is counted in


def place_of(grid: Grid) -> Tensor:
    """Where a grid's voxels lie, along D, H, W in units of 100 mm: `[3, D, H, W]`; W is 0 in the midplane."""
    affine = grid.torch_affine
    axes = [
        (affine[2 - axis, axis] * torch.arange(n) + affine[2 - axis, 3]) / EXTENT for axis, n in enumerate(grid.shape)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()


class AppearanceDataModule(RegistrationDataModule):
    """A cohort's images, each with the template and its labels as `cortexgen register` warped them to it.

    Arguments:
        root: the cohort, or several, as `register` took them: BIDS derivatives with images on one grid.
        registered: what `cortexgen register` wrote of them.
        field_spacing: begin with the template warped by the registrations' velocities in voxels of so many
            millimetres, which is what stage 2 draws (its `spacing`), instead of the warped images that `register`
            wrote, by finer fields than generation will have.
        mirror: show each subject's mirror image half of the time.
        coarse: begin with the subjects' own images at this voxel size in millimetres, and labels that fit these,
            instead of the warped template: what is learned makes images finer.
        options: of RegistrationDataModule.
    """

    def __init__(
        self,
        root: Roots,
        registered: Path,
        mirror: bool = True,
        coarse: float | None = None,
        field_spacing: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root=root, augmentation="mirror" if mirror else "none", **options)
        self.registered, self.coarse, self.field_spacing = Path(registered), coarse, field_spacing

    def setup(self, stage: str) -> None:
        """Read the cohort, and what was warped to its subjects; those without it are left out."""
        fresh = not self.scans
        super().setup(stage)
        if not fresh:
            return
        self._begun = self.open_cache("begun", self.template.hash, self.coarse, self.field_spacing)
        if not self.template.classes:
            raise UserError("appearance needs a template with labels; give --data.template_labels")
        if self.coarse is not None and self.coarse <= max(self.grid.spacing):
            size = max(self.grid.spacing)
            raise UserError(f"coarse: expected a voxel size above the images' own, {size:g} mm, got {self.coarse:g}")
        if not self.registered.is_dir():
            raise UserError(f"registered: {self.registered} is no folder; expected what `cortexgen register` wrote")
        kept = [scan for scan in self.scans if scan.name not in self.problems]
        for scan in kept:
            missing = [path for path in self.warped_files(scan) if not path.is_file()]
            if missing:
                self._leave_out(scan, f"{missing[0]}: no such file; run `cortexgen register` on it first")
            elif self.field_spacing is not None:
                try:
                    read_sidecar(self.warped_files(scan)[0], self.template.hash)
                except UserError as error:
                    self._leave_out(scan, str(error))
        if all(scan.name in self.problems for scan in kept):
            raise UserError(f"{self.registered}: holds none of the {len(kept)} scans; {self.problems[kept[0].name]}")

    def warped_files(self, scan: Scan) -> tuple[Path, ...]:
        """What `register` wrote of a scan that is read: the template's image, and its labels, warped to it; or the
        velocity that warps them."""
        if self.field_spacing is not None:
            path = derivative(self.registered, scan.name, "field", space=self.template.name, desc="velocity")
            if path.is_file():
                return (path,)
            named_otherwise = sorted(path.parent.glob(f"{scan.name}_*desc-velocity_field.nii*"))
            return (named_otherwise[0] if named_otherwise else path,)
        return tuple(derivative(self.registered, scan.name, what, desc="warped") for what in ("T1w", "dseg"))

    def warped(self, scan: Scan) -> tuple[Tensor, Tensor]:
        """What a scan's image begins with, `[1, D, H, W]` each on the working grid.

        That is the template, and its classes, warped to it; with `coarse`, its own image in that size, and those
        classes fitted to it.
        """
        if self.coarse is not None:
            return self._coarse(scan, self.coarse)
        if self.field_spacing is not None:
            path, spacing = self.warped_files(scan)[0], self.field_spacing
            image, labels = self._begun.get(path, lambda: self._by_field(scan, spacing)).float().split(1)
            return image, labels.long()
        path, cache = self.warped_files(scan)[0], self.reader.cache

        def read() -> Tensor:
            volume, found = read_volume(path)
            if found.matches(self.grid):
                return volume.half()
            return resample(volume[None], found.torch_affine, self.grid.shape, self.grid.torch_affine)[0].half()

        return cache.get(path, read).float(), self._labels(scan)

    def _labels(self, scan: Scan) -> Tensor:
        """The template's classes, as `register` warped them to a scan."""
        path = self.warped_files(scan)[1]

        def read() -> Tensor:
            volume, found = read_volume(path, labels=True)
            classes = classes_of(volume, self.template.numbers or range(len(self.template.classes)), path)
            return (classes if found.matches(self.grid) else labels_on(classes, found, self.grid)).to(torch.int16)

        return self.reader.cache.get(path, read).long()

    def _by_field(self, scan: Scan, spacing: float) -> Tensor:
        """The template, and its classes, warped by a field of that voxel size, `[2, D, H, W]`."""
        displacement = displacement_of(self.warped_files(scan)[0], self.template.hash, spacing, self.grid)
        return torch.cat(warped_template(self.template, displacement)).half()

    def _coarse(self, scan: Scan, spacing: float) -> tuple[Tensor, Tensor]:
        """A scan's image in voxels of another size, and labels that fit it, both back on the working grid."""
        grid, small = self.grid, self.grid.at_spacing(spacing)

        def image() -> Tensor:
            return resample(self.reader.image(scan)[None], grid.torch_affine, small.shape, small.torch_affine)[0]

        def back() -> Tensor:
            return resample(image()[None], small.torch_affine, grid.shape, grid.torch_affine)[0].half()

        def labels() -> Tensor:
            spaced = self.field_spacing
            warped = self._labels(scan) if spaced is None else self._by_field(scan, spaced)[1:].long()
            before = labels_on(warped, grid, small)
            return labels_on(fit_labels(image(), before, self.template.classes, spacing), small, grid).to(torch.int16)

        kept = self._begun
        return kept.get(scan.image, back).float(), kept.get(self.warped_files(scan)[-1], labels).long()

    @cached_property
    def place(self) -> Tensor:
        """Of the working grid's voxels."""
        return place_of(self.grid)

    @cached_property
    def styles(self) -> dict[str, dict[str, float]]:
        """Of each training scan, by its name; one that has none is left out."""
        found = {}
        for scan in tracked(self.side("train"), "measuring styles", leave=False):
            try:
                image, labels = self.reader.image(scan), self.warped(scan)[1]
                found[scan.name] = measure_style(image, labels, self.template.classes, min(self.grid.spacing))
            except UserError as error:
                self._leave_out(scan, str(error))
        if not found:
            raise self._none_readable("training scans")
        return found

    def people(self, covariates: Sequence[str]) -> list[dict[str, Any]]:
        """Covariates and style of each training scan, without names."""
        scans = {scan.name: scan for scan in self.side("train")}
        return [
            {k: v for k, v in scans[name].covariates.items() if k in covariates and v is not None} | style
            for name, style in self.styles.items()
            if name in scans
        ]

    def encoder(self, covariates: Sequence[str]) -> CovariateEncoder:
        """Of covariates and styles of the training scans."""
        return CovariateEncoder.fit([*covariates, *STYLE], self.people(covariates))

    def deviation(self) -> float:
        """Root mean square of what training images differ by from the template warped to them, in either's brain."""
        total, count = 0.0, 0
        for scan in self.side("train"):
            image, template = self.reader.image(scan), self.warped(scan)[0]
            inside = (image > 0) | (template > 0)
            total += float((image - template)[inside].square().sum())
            count += int(inside.sum())
        return (total / max(1, count)) ** 0.5

    def samples(self, scans: Sequence[Scan], training: bool = False) -> "WarpedScans":  # type: ignore[override]
        """Images with what was warped to them; parts of them in training, where `patch` says so."""
        patch = [min(side, n) for side, n in zip(self.patch or (), self.grid.shape, strict=False)]
        patches = PatchSampler(patch, self.grid, self.template.mask) if training and self.patch else None
        styles = self.styles if training else {}
        return WarpedScans(self, scans, training, styles, patches)

    def predict_dataloader(self) -> DataLoader:
        """What was warped to each usable scan, or to those of one side, with its covariates, one by one."""
        sides = (self.only,) if self.only else ("train", "val", "test")
        scans = [scan for side in sides for scan in self.side(side)]
        return DataLoader(Shapes(self, scans), collate_fn=itemgetter(0), num_workers=self.num_workers)


@dataclass(frozen=True)
class Shapes(Dataset):
    """Of each scan its "index" among these, "moving" and "moving_labels", warped to it, and its covariates."""

    data: AppearanceDataModule
    scans: Sequence[Scan]

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scan = self.scans[index]
        image, labels = self.data.warped(scan)
        return {"index": index, "moving": image, "moving_labels": labels, "covariates": dict(scan.covariates)}


@dataclass(frozen=True)
class WarpedScans(TrainingSamples):
    """Of each scan "fixed", its image; "moving" and "moving_labels", warped to it; "place"; covariates with style."""

    data: AppearanceDataModule
    scans: Sequence[Scan]
    training: bool
    styles: Mapping[str, Mapping[str, float]]
    patches: PatchSampler | None = None

    def sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        scan, data = self.scans[index], self.data
        image, labels = data.warped(scan)
        images = {"fixed": data.reader.image(scan), "moving": image, "moving_labels": labels}
        style = self.styles.get(scan.name)
        if style is None:
            style = measure_style(images["fixed"], labels, data.template.classes, min(data.grid.spacing))
        images = augment(images, data.augmentation if self.training else "none", generator)
        sample: dict[str, Any] = images | {"place": data.place}
        if self.patches is not None:
            sample = self.patches(sample, generator)
        return sample | {"name": scan.name, "covariates": {**scan.covariates, **style}}
