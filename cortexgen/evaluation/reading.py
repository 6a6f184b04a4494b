"""A set of brains, real or synthetic, read one at a time onto one grid."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cortexgen.atlas.labels import labels_on, read_label_table
from cortexgen.data.cohort import Scan, find_scans, has_subjects, scans_of, usable
from cortexgen.data.cohorts import Roots, all_scans, folders_of, place, read_cohorts
from cortexgen.errors import UserError, reason
from cortexgen.evaluation.comparable import covered, cut, in_unit, laid_on, overlap, to_unit
from cortexgen.io import Grid, HeaderChoice, read_grid, read_volume
from cortexgen.io.header import NO_CHOICE
from cortexgen.io.naming import is_nifti
from cortexgen.io.paths import visible
from cortexgen.spatial import present_labels, resample

OVERLAP = 0.5  # of the smaller field of view; less, and two grids show different places
LOST = 0.01  # of all intensity; what loses more is said to be cut
WHOLE = 0.95  # of the grid; what covers less is said to show a part
IMAGES, LABELS = "*_T1w.nii*", "*_dseg.nii*"


class Brain(NamedTuple):
    """One brain of a set.

    Attributes:
        name: "sub-01", or "sub-01_ses-02".
        image: `[1, D, H, W]`, float32 in [0, 1].
        labels: `[1, D, H, W]`, int64, or None.
        grid: of both, the set's.
        treatments: what was done to it, each with what more there is to say of the first brain that it was done to.
    """

    name: str
    image: Tensor
    labels: Tensor | None
    grid: Grid
    treatments: Mapping[str, str] = {}


class BrainSet:
    """The brains of a folder, read one at a time, of which none is kept.

    A brain that can't be read is left out with its reason in `problems`; the others go on.

    Attributes:
        path: of the set; of several folders, as messages name them.
        name: of the folder, or of the folders.
        scans: name, files and covariates of each brain, the unreadable ones included.
        grid: that all volumes are brought to.
        classes: names of the labels by index, where they are known.
        problems: why a brain was left out, by name.
    """

    def __init__(
        self,
        path: Roots,
        labels_from: Path | None = None,
        grid: Grid | None = None,
        classes: Mapping[int, str] | None = None,
        rescale: bool = True,
        ignore_affine: bool = False,
        images: str = IMAGES,
        labels: str | None = LABELS,
        choice: HeaderChoice = NO_CHOICE,
        labels_needed: bool = True,
    ) -> None:
        """Find the brains, and read one header.

        Arguments:
            path: a folder of NIfTI files, a BIDS (derivative) data set, or one file; or a list of folders.
            labels_from: a folder or data set of label maps for them, matched by name ("sub-01_T1w.nii.gz" goes with
                "sub-01_dseg.nii.gz" or "sub-01_T1w_synthseg.nii.gz"); those beside the images unless given.
            grid: another set's grid; that of the first readable image unless given.
            classes: labels that may occur; those of the data set's `dseg.tsv` unless given, any without one.
            rescale: divide each image by its robust maximum, as everywhere in this library; otherwise images outside
                [0, 1] are refused.
            ignore_affine: take every image as lying on the grid, whatever its header says (some generators write
                none); those of another size are refused.
            images, labels: file name patterns; None for no labels.
            choice: what decides where headers leave a choice.
            labels_needed: leave brains out whose label map can't be read; otherwise they go without, which is noted.

        Raises:
            UserError: if there is no image, none of them can be read, two have one name, or no label map of
                `labels_from` belongs to an image.
        """
        folders = folders_of(path)
        self.path, self.name = Path(place(folders.values())), " and ".join(folders)
        self.rescale, self.ignore_affine, self.labels_needed = rescale, ignore_affine, labels_needed
        self.choice = dataclasses.replace(choice, ignored=ignore_affine)
        self.scans = all_scans(read_cohorts(folders, lambda folder: find_images(folder, images, labels)))
        self.problems: dict[str, str] = {}
        self._treated: dict[str, tuple[str, list[str]]] = {}
        if labels_from is not None:
            self._take_labels(Path(labels_from), labels or LABELS)
        if classes is None:
            table = common_table([labels_from] if labels_from else folders.values())
            classes = read_label_table(table) if table.is_file() else None
        self.classes = classes
        self.grid = grid or self._first_grid()

    def __len__(self) -> int:
        """How many brains there are, without those known to be unreadable."""
        return len(self.scans) - len(self.problems)

    @property
    def notes(self) -> list[str]:
        """What was done to the brains read so far, a line for each kind of treatment."""
        lines = []
        for what, (first, names) in self._treated.items():
            good = [name for name in names if name not in self.problems]
            if good:
                some = ", ".join(good[:3]) + (", ..." if len(good) > 3 else "")
                lines.append(f"{self.path}: {len(good)} of {len(self.scans)} brains ({some}): {what}{first}")
        return lines

    def recall(self, scan: Scan, treatments: Mapping[str, str]) -> None:
        """Take note of what was done to a brain, which another process or run may have read."""
        for what, first in treatments.items():
            _, names = self._treated.setdefault(what, (first, []))
            if scan.name not in names:
                names.append(scan.name)

    def require(self, n: int, what: str) -> None:
        """See that there are brains enough.

        Raises:
            UserError: if there are fewer than n, which says what needs them and what was unreadable.
        """
        if len(self) < n:
            first = next(iter(self.problems.values()), "")
            lost = f", and {len(self.problems)} that can't be used; the first: {first}" if first else ""
            raise UserError(f"{self.path}: {what} needs {n} or more brains, found {len(self)}{lost}")

    def read(self, scan: Scan, grid: Grid | None = None, rescale: bool | None = None) -> Brain:
        """Read one brain, and note nothing.

        Arguments:
            grid, rescale: instead of the set's.

        Raises:
            UserError: if a file can't be read, shows another place than the grid, has intensities whose zero is lost,
                or holds unknown labels.
        """
        scan.check()
        grid = grid or self.grid
        treatments: dict[str, str] = {}
        image, found = read_volume(scan.image, choice=self.choice)
        if self.rescale if rescale is None else rescale:
            image, treatment = to_unit(image, scan.image)
            treatments |= {treatment: ""} if treatment else {}
        else:
            image = in_unit(image, scan.image)
        image = self._placed(image, found, grid, treatments, scan.image)
        labels = None
        try:
            labels = None if scan.labels is None else self._labels(scan.labels, grid, treatments)
        except UserError as error:
            if self.labels_needed:
                raise
            treatments["without the label map, which can't be used"] = f", the first: {error}"
        return Brain(scan.name, image, labels, grid, treatments)

    def _labels(self, source: Path, grid: Grid, treatments: dict[str, str]) -> Tensor:
        labels, found = read_volume(source, labels=True, choice=self.choice)
        present = present_labels(labels)
        known = present >= 0 if self.classes is None else torch.isin(present, torch.tensor([0, *self.classes]))
        if not known.all():
            unknown = ", ".join(map(str, present[~known][:5].tolist()))
            expected = "indices from 0 on" if self.classes is None else f"one of {len(self.classes)} classes"
            raise UserError(f"{source}: unknown label {unknown}, expected {expected}")
        return self._placed(labels, found, grid, treatments, source)

    def _placed(self, volume: Tensor, found: Grid, grid: Grid, treatments: dict[str, str], source: Path) -> Tensor:
        """An image or a label map on a grid; what had to be done for that joins the treatments."""
        if found.matches(grid):
            return volume
        what = "image" if volume.is_floating_point() else "labels"
        if self.ignore_affine:
            treatments[f"{what} taken as lying on {grid}, affine ignored"] = ""
            return laid_on(volume, found, grid, source)
        share = overlap(found, grid)
        if share < OVERLAP:
            raise UserError(f"{source}: its grid is {found}, the comparison's {grid}: they overlap by {share:.0%}")
        out = cut(volume, found, grid)
        done = "resampled" if out is None else "cut or padded"
        treatments[f"{what} {done} to {grid}"] = f", the first from {found}"
        cover = covered(grid, found)
        if cover < WHOLE:
            treatments[f"{what} of a part of that grid only"] = f", the first of {cover:.0%}"
        if out is None and what == "image":
            out = resample(volume[None], found.torch_affine, grid.shape, grid.torch_affine)[0]
        elif out is None:
            out = labels_on(volume, found, grid)
        kept = float(out.sum()) * grid.voxel_volume / (float(volume.sum()) * found.voxel_volume)
        if kept == 0:
            raise UserError(f"{source}: all that it shows lies outside the comparison's grid, {grid}")
        if kept < 1 - LOST and what == "image":
            treatments["a part of the brain lies outside that grid"] = f", {1 - kept:.0%} of the first"
        return out

    def _first_grid(self) -> Grid:
        for scan in self.scans:
            try:
                scan.check()
                return read_grid(scan.image, self.choice)
            except Exception as error:
                self.problems[scan.name] = reason(error)
        first = next(iter(self.problems.values()))
        raise UserError(f"{self.path}: none of its {len(self.scans)} images can be read; the first: {first}")

    def _take_labels(self, folder: Path, pattern: str) -> None:
        maps = {_stem(scan.name): scan for scan in find_images(folder, pattern, None)}
        self.scans = [_labelled(scan, maps.get(_stem(scan.name))) for scan in self.scans]
        without = [scan for scan in self.scans if scan.labels is None and not scan.problem]
        if len(without) == len(self.scans):
            raise UserError(f"{folder}: none of its {len(maps)} label maps has the name of an image of {self.path}")
        for scan in without:
            self.recall(scan, {f"no label map in {folder}": ""})


def common_table(folders: Iterable[Path]) -> Path:
    """The label table `dseg.tsv` of data sets; its place in the first of them where there is none.

    Raises:
        UserError: if those of two data sets differ.
    """
    tables = [Path(folder, "dseg.tsv") for folder in folders]
    first, *others = [table for table in tables if table.is_file()] or tables[:1]
    for table in others:
        if read_label_table(table) != read_label_table(first):
            raise UserError(f"{table}: names other classes than {first}; give --label_table")
    return first


def find_images(path: Path, images: str = IMAGES, labels: str | None = LABELS) -> list[Scan]:
    """The brains that a user means, with the label maps beside them (unless `labels` is None).

    In a folder of NIfTI files, those that fit `images`; if none does, all but those that fit `labels`.

    Raises:
        UserError: if there is no such thing, or two images have one name.
    """
    if not path.is_dir() or has_subjects(path):
        scans = find_scans(path, images, labels or images)
        return scans if labels else [dataclasses.replace(scan, labels=None) for scan in scans]
    files = [p for p in visible(path) if is_nifti(p)]
    maps = [file for file in files if fnmatchcase(file.name, labels or LABELS)]
    fitting = [file for file in files if fnmatchcase(file.name, images)] or [f for f in files if f not in maps]
    if not fitting:
        raise UserError(f"{path}: no NIfTI image in this folder")
    beside = {_stem(scan.name): scan for scan in scans_of(maps)} if labels else {}
    return usable(path, [_labelled(scan, beside.get(_stem(scan.name))) for scan in scans_of(fitting)])


def _labelled(scan: Scan, labels: Scan | None) -> Scan:
    """A scan with its label map, or with what is wrong with that."""
    if labels is None or scan.problem:
        return dataclasses.replace(scan, labels=None)
    return dataclasses.replace(scan, labels=None if labels.problem else labels.image, problem=labels.problem)


def _stem(name: str) -> str:
    """A name without what tells images and label maps apart."""
    return re.sub(r"(T1w|dseg|synthseg|aseg|labels?|seg)+$", "", name)
