"""The template: an image, its labels, and the names of the classes."""

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cortexgen.data.intensity import normalize
from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.bids import read_tsv
from cortexgen.io.header import Form
from cortexgen.io.nifti import to_memory
from cortexgen.spatial import resample

MNI152 = "MNI152NLin2009aSym"
# Of nilearn's array (uint8 counts); another array is another template.
MNI152_SHA256 = "a42242e3dc051f80e18cf23eb12618a6f09ff951defa2d1e9687d8dcb8810bbf"
BRAIN_FOREGROUND = 0.05


@dataclass(frozen=True)
class Template:
    """A template on one grid.

    Attributes:
        name: as in the names of transforms, `from-<name>_to-T1w`.
        image: `[1, D, H, W]`, float32 in [0, 1].
        labels: `[1, D, H, W]`, int64 in `[0, classes)`, or None.
        classes: names of the classes, by index.
        grid: of both.
        hash: of the template as it was given, before any resampling.
    """

    name: str
    image: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    grid: Grid
    hash: str

    @property
    def mask(self) -> Tensor:
        """The brain, `[1, D, H, W]` bool."""
        return self.image > BRAIN_FOREGROUND

    def to(self, grid: Grid) -> "Template":
        """The template on another grid: image and class probabilities resampled with antialiasing."""
        if grid.matches(self.grid):
            return Template(self.name, self.image, self.labels, self.classes, grid, self.hash)
        old, new = self.grid.torch_affine, grid.torch_affine
        image = resample(self.image[None], old, grid.shape, new)[0]
        labels = None if self.labels is None else resample_labels(self.labels, self.grid, grid, len(self.classes))
        return Template(self.name, image, labels, self.classes, grid, self.hash)


def resample_labels(labels: Tensor, grid: Grid, target: Grid, classes: int) -> Tensor:
    """A label map `[1, D, H, W]` on another grid: the class of the largest resampled indicator."""
    best = torch.full((1, *target.shape), -1.0)
    winner = torch.zeros((1, *target.shape), dtype=torch.int64)
    for k in range(classes):
        p = resample((labels == k).float()[None], grid.torch_affine, target.shape, target.torch_affine)[0]
        winner[p > best] = k
        best = torch.maximum(best, p)
    return winner


def load_template(
    template: str | Path = MNI152,
    labels: Path | None = None,
    label_table: Path | None = None,
    trust: Form | None = None,
) -> Template:
    """Load a template.

    Arguments:
        template: the name "MNI152NLin2009aSym" (nilearn's, skull-stripped, 1 mm, with this package's 18 classes), or
            a NIfTI file.
        labels: a dseg on the grid of `template`.
        label_table: a tab-separated file with columns `index` and `name`; classes are numbered without it.
        trust: which of a file's sform and qform to take where they differ.

    Raises:
        UserError: if a file is missing or damaged, labels lie on another grid, or a label has no name in the table.
    """
    if str(template) == MNI152:
        if labels is not None or label_table is not None:
            raise UserError(f"{MNI152} brings its own labels: give labels with a template file only")
        return _mni152()
    path = Path(template)
    if not path.is_file():
        raise UserError(f"template: {path} is neither a file nor the name {MNI152}")
    choice = HeaderChoice(trust)
    image, grid = read_volume(path, choice=choice)
    image = normalize(image, path)
    dseg: Tensor | None = None
    classes: tuple[str, ...] = ()
    if labels is not None:
        dseg, label_grid = read_volume(labels, labels=True, choice=choice)
        if not label_grid.matches(grid):
            raise UserError(f"template and labels lie on different grids: {path}: {grid}; {labels}: {label_grid}")
        classes = class_names(dseg, label_table)
    entity = re.search(r"tpl-([A-Za-z0-9]+)", path.name)
    name = entity.group(1) if entity else re.sub(r"[^A-Za-z0-9]", "", path.name.split(".")[0])
    return _finish(name, image, dseg, classes, grid)


def class_names(dseg: Tensor, table: Path | None) -> tuple[str, ...]:
    """Names of a label map's classes by index, from a table, or numbered.

    Raises:
        UserError: if a label is negative, or has no name in the table.
    """
    if int(dseg.min()) < 0:
        raise UserError(f"labels must not be negative, found {int(dseg.min())}")
    if table is None:
        return tuple(f"label-{k}" for k in range(int(dseg.max()) + 1))
    names = read_label_table(table)
    unnamed = sorted(set(torch.unique(dseg).tolist()) - set(names))
    if unnamed:
        raise UserError(f"{table}: no name for label {', '.join(map(str, unnamed))}")
    return tuple(names.get(k, f"label-{k}") for k in range(max(names) + 1))


def read_label_table(path: Path) -> dict[int, str]:
    """Index and name of each class, from a BIDS `dseg.tsv`."""
    rows = read_tsv(path)
    if not {"index", "name"} <= set(rows[0]):
        raise UserError(f"{path}: expected columns index and name")
    try:
        return {int(row["index"]): str(row["name"]) for row in rows}
    except (TypeError, ValueError):
        raise UserError(f"{path}: expected whole numbers in the column index") from None


def _finish(name: str, image: Tensor, labels: Tensor | None, classes: tuple[str, ...], grid: Grid) -> Template:
    digest = hashlib.sha256(np.rint(image.numpy() * 1e4).astype(np.int32).tobytes())
    digest.update(np.round(grid.affine, 4).astype(np.float32).tobytes())
    if labels is not None:
        digest.update(labels.numpy().astype(np.int32).tobytes())
    digest.update("\n".join(classes).encode())
    return Template(name, image, labels, classes, grid, digest.hexdigest())


@lru_cache(maxsize=1)
def _mni152() -> Template:
    from nilearn.datasets import load_mni152_template  # seconds to import

    loaded = load_mni152_template(resolution=1)
    counts = np.rint(np.asarray(loaded.dataobj) * 255).astype(np.uint8)
    found = hashlib.sha256(counts.tobytes()).hexdigest()
    if found != MNI152_SHA256:
        raise UserError(
            f"nilearn's MNI152 template has hash {found}, expected {MNI152_SHA256}: another nilearn release?"
        )
    array, grid = to_memory(counts.astype(np.float32) / 255, loaded.affine, Path(MNI152))
    image = normalize(torch.from_numpy(array).unsqueeze(0), MNI152)
    folder = files("cortexgen.data") / "templates"
    labels, label_grid = read_volume(Path(str(folder / f"tpl-{MNI152}_res-1_dseg.nii.gz")), labels=True)
    if not label_grid.matches(grid):
        raise UserError(f"the packaged labels do not lie on nilearn's grid: {label_grid} against {grid}")
    table = read_label_table(Path(str(folder / f"tpl-{MNI152}_dseg.tsv")))
    return _finish(MNI152, image, labels, tuple(table[k] for k in sorted(table)), grid)
