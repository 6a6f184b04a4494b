"""Fixed images and what was registered to them, a pair at a time, whatever tool made it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortexgen.atlas.alignment import align, check_alignment, in_template_space
from cortexgen.atlas.labels import distinct, labels_on, numbered, read_label_table
from cortexgen.atlas.template import MNI152, load_template
from cortexgen.data.cohort import Scan
from cortexgen.data.cohorts import Roots, folders_of
from cortexgen.errors import UserError
from cortexgen.evaluation.reading import IMAGES, LABELS, Brain, BrainSet, common_table
from cortexgen.io import Grid, HeaderChoice, read_field, read_grid
from cortexgen.io.header import NO_CHOICE
from cortexgen.io.naming import named_after
from cortexgen.io.paths import is_file_name, name_of, visible
from cortexgen.spatial import resample

NO_REGISTRATION = "no registration"
RESERVED = ("class", "published", NO_REGISTRATION)
WARPED, WARPED_LABELS = "*_desc-warped_T1w.nii*", "*_desc-warped_dseg.nii*"
FIELDS = "*_from-*_to-T1w_mode-image_xfm.nii*"


@dataclass(frozen=True)
class Sources:
    """What is compared in the folders.

    Attributes:
        images, labels, fields: file name patterns of a method's warped images and label maps, and of its ITK
            displacement fields on the fixed grid.
        moving: what was registered: the template's name, or a NIfTI file.
        moving_labels: the label map of such a file.
        label_table: names of the labels; `dseg.tsv` of the fixed data set unless given.
        fixed_images, fixed_labels: file name patterns.
        choice: what decides where the headers of images and labels leave a choice.
    """

    images: str = WARPED
    labels: str = WARPED_LABELS
    fields: str = FIELDS
    moving: str = MNI152
    moving_labels: Path | None = None
    label_table: Path | None = None
    fixed_images: str = IMAGES
    fixed_labels: str = LABELS
    choice: HeaderChoice = NO_CHOICE


class Pairs:
    """The fixed brains of a folder, each method's results for them, and the moving image as doing nothing leaves it.

    Attributes:
        fixed: the fixed brains, each on its own grid.
        methods: doing nothing, and the others.
        results: the brains of each method; they go with the fixed ones by name.
        scans: the fixed scans that a method or more have results for.
        moving: the template, or another image; without labels if they aren't known to be of the fixed ones' classes.
        classes: names of the labels by index, None if they are unknown.
        notes: what can't be compared.
    """

    def __init__(self, fixed: Roots, results: Mapping[str, Path], sources: Sources) -> None:
        """Find the files; arguments and errors are those of `evaluate_registration`."""
        self._made_of = (fixed, results, sources)
        for name in results:
            if name in RESERVED or not is_file_name(name):
                raise UserError(f"a method can't be called {name!r}, which names a folder and a column of tables")
        table = sources.label_table or common_table(folders_of(fixed).values())
        self.classes = distinct(read_label_table(table)) if sources.label_table or table.is_file() else None
        common: dict[str, Any] = {"classes": self.classes, "choice": sources.choice}
        self.fixed = BrainSet(fixed, images=sources.fixed_images, labels=sources.fixed_labels, **common)
        common |= {"grid": self.fixed.grid, "images": sources.images, "labels": sources.labels}
        self.results = {name: BrainSet(folder, **common) for name, folder in results.items()}
        self.methods = [NO_REGISTRATION, *results]
        self._found = {name: {scan.name: scan for scan in brains.scans} for name, brains in self.results.items()}
        self.fields = {name: _find(Path(folder), sources.fields) for name, folder in results.items()}
        self.template = load_template()
        named = table if sources.moving_labels and self.classes else None
        self.moving = load_template(sources.moving, sources.moving_labels, named, sources.choice.trust)
        labels, self.notes = self.moving.labels, []
        self.moving_labels = None if labels is None else numbered(labels, self.moving.numbers)
        if labels is not None and sources.moving_labels is None and not self._same_classes():
            self.moving_labels = None
            why = f"{table} names other classes" if self.classes else f"{table} isn't there to say what theirs are"
            self.notes.append(f"The fixed labels can't be compared with those of {self.moving.name}: {why}.")
        self.scans = self._match()
        self._last: tuple[Grid, Tensor, Tensor | None] | None = None  # most sets have one grid
        self._to_fixed: dict[str, Tensor] = {}
        self._to_moving = torch.eye(4, dtype=torch.float64)
        if sources.moving != MNI152:
            self._to_moving = self._affine(self.moving.image, self.moving.grid, sources.moving)

    def __reduce__(self) -> tuple[Any, ...]:  # other processes find the files again, and read the moving image
        return Pairs, self._made_of

    def _match(self) -> list[Scan]:
        """The fixed scans that a method has; notes what has no counterpart."""
        fixed, registered = {scan.name for scan in self.fixed.scans}, set().union(*self._found.values())
        for name, found in self._found.items():
            if not fixed & found.keys():
                where = f"{self.results[name].path}: none of its {len(found)} images"
                raise UserError(f"{where} has the name of one of {self.fixed.path}; {min(found)} is not {min(fixed)}")
            self._note(f"images of {name} have no fixed image", found.keys() - fixed)
        self._note("fixed images have no registered one", fixed - registered)
        return [scan for scan in self.fixed.scans if scan.name in registered]

    def _note(self, what: str, names: Collection[str]) -> None:
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            self.notes.append(f"{len(names)} {what} ({some}) and are left out.")

    def _same_classes(self) -> bool:
        ours = zip(self.moving.numbers, self.moving.classes, strict=True)
        return self.classes is not None and all(self.classes.get(k) == name for k, name in ours if k)

    def files(self, method: str, scan: Scan) -> list[Path]:
        """The files that a pair depends on.

        Raises:
            UserError: if the method has no result for a fixed scan.
        """
        found = [scan.image, scan.labels]
        if method != NO_REGISTRATION:
            registered = self._result(method, scan)
            found += [registered.image, registered.labels, *self.fields[method].get(scan.name, [])]
        return [path for path in found if path is not None]

    def _result(self, method: str, scan: Scan) -> Scan:
        if scan.name not in self._found[method]:
            raise UserError(f"{self.results[method].path}: no image of {scan.name}, which {self.fixed.path} has")
        self._found[method][scan.name].check()
        return self._found[method][scan.name]

    def read_fixed(self, scan: Scan) -> Brain:
        """A fixed brain on its own grid.

        Raises:
            UserError: if it can't be read.
        """
        scan.check()
        return self.fixed.read(scan, read_grid(scan.image, self.fixed.choice))

    def read(self, method: str, scan: Scan, fixed: Brain) -> Brain:
        """What a method made of the moving image for a fixed brain; intensities in [0, 1] are taken as they are.

        Raises:
            UserError: if there is nothing, or it can't be read, or lies elsewhere.
        """
        if method == NO_REGISTRATION:
            return self.unregistered(scan, fixed)
        brains, registered = self.results[method], self._result(method, scan)
        try:
            return brains.read(registered, fixed.grid, rescale=False)
        except UserError:
            return brains.read(registered, fixed.grid)

    def unregistered(self, scan: Scan, fixed: Brain) -> Brain:
        """The moving image on a fixed brain's grid through affines only.

        Raises:
            UserError: if the fixed brain isn't in template space, and no affine brings it there.
        """
        if scan.name not in self._to_fixed:
            self._to_fixed[scan.name] = self._affine(fixed.image, fixed.grid, scan.image)
        there = self._to_moving @ torch.linalg.inv(self._to_fixed[scan.name]) @ fixed.grid.torch_affine
        target = Grid(fixed.grid.shape, there.numpy())
        if self._last is None or not target.matches(self._last[0]):
            moving, labels = self.moving, self.moving_labels
            image = resample(moving.image[None], moving.grid.torch_affine, target.shape, target.torch_affine)[0]
            self._last = target, image, None if labels is None else labels_on(labels, moving.grid, target)
        return Brain(scan.name, *self._last[1:], fixed.grid)

    def _affine(self, image: Tensor, grid: Grid, source: object) -> Tensor:
        """From template space to an image's, `[4, 4]` in millimetres; the identity if it is there already."""
        if in_template_space(image, grid, self.template):
            return torch.eye(4, dtype=torch.float64)
        affine = align(image, grid, self.template, source)
        check_alignment(image, grid, self.template, affine, source)
        return torch.from_numpy(affine)

    def displacement(self, method: str, scan: Scan, grid: Grid) -> Tensor | None:
        """The pull-back of a method on the fixed grid, `[3, D, H, W]` in voxels; None if it wrote none.

        Raises:
            UserError: if there are several, or the field can't be read, or lies on another grid.
        """
        paths = self.fields.get(method, {}).get(scan.name)
        if not paths:
            return None
        if len(paths) > 1:
            what = f"{len(paths)} files are fields of {scan.name} ({', '.join(path.name for path in paths[:3])})"
            raise UserError(f"{paths[0].parent}: {what}; give a pattern that fits one")
        path = paths[0]
        field, found = read_field(path)
        if not found.matches(grid):
            raise UserError(f"{path}: the field's grid is {found}, the fixed image's {grid}")
        return field


def _find(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """The files of a folder or data set that fit a pattern, by the name of their scan."""
    places = [*folder.glob("sub-*/anat"), *folder.glob("sub-*/ses-*/anat")] or [folder]
    found: dict[str, list[Path]] = {}
    for path in (path for place in places for path in visible(place, pattern)):
        found.setdefault(name_of(*named_after(path)), []).append(path)
    return found
