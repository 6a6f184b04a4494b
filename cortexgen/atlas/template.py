"""The template: an image, its labels, and the names of the classes."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.labels import LabelMap, labels_on, numbered, read_label_table, read_labels
from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.header import Form
from cortexgen.io.nifti import open_image, to_memory
from cortexgen.io.paths import label
from cortexgen.spatial import resample

__all__ = ["BRAIN_FOREGROUND", "MNI152", "Template", "load_template", "read_label_table"]

MNI152 = "MNI152NLin2009aSym"
MNI152_FILE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"  # of nilearn
# Of its array (uint8 counts); another array is another template.
MNI152_SHA256 = "a42242e3dc051f80e18cf23eb12618a6f09ff951defa2d1e9687d8dcb8810bbf"
BRAIN_FOREGROUND = 0.05
KEPT, KEPT_VOXELS = 4, 2_000_000  # templates on other grids, and the voxels of such


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
        numbers: of the classes in files; 0, 1, 2, ... unless given.
    """

    name: str
    image: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    grid: Grid
    hash: str
    numbers: tuple[int, ...] = ()
    _elsewhere: dict[Any, "Template"] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __reduce_ex__(self, protocol: Any) -> Any:  # every process has the default one
        return (load_template, ()) if self.name == MNI152 and self is _mni152() else super().__reduce_ex__(protocol)

    @property
    def mask(self) -> Tensor:
        """The brain, `[1, D, H, W]` bool."""
        return self.image > BRAIN_FOREGROUND

    def to(self, grid: Grid) -> "Template":
        """The template on another grid: image and class probabilities resampled with antialiasing.

        Those on the last few grids are kept, where they are small: a cohort has one grid or two.
        """
        if grid.matches(self.grid):
            return replace(self, grid=grid)
        place = (tuple(grid.shape), grid.torch_affine.numpy().tobytes())
        found = self._elsewhere.get(place)
        if found is None:
            image = resample(self.image[None], self.grid.torch_affine, grid.shape, grid.torch_affine)[0]
            labels = None if self.labels is None else labels_on(self.labels, self.grid, grid)
            found = replace(self, image=image, labels=labels, grid=grid)
            if image.numel() <= KEPT_VOXELS:
                self._elsewhere[place] = found
            if len(self._elsewhere) > KEPT:
                self._elsewhere.pop(next(iter(self._elsewhere)))
        return replace(found, grid=grid)


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
    dseg = None if labels is None else read_labels(labels, label_table, choice)
    if dseg is not None and not dseg.grid.matches(grid):
        raise UserError(f"template and labels lie on different grids: {path}: {grid}; {labels}: {dseg.grid}")
    entity = re.search(r"tpl-([A-Za-z0-9]+)", path.name)
    name = entity.group(1) if entity else label(path.name.split(".")[0])
    return _finish(name, image, dseg, grid)


def _finish(name: str, image: Tensor, dseg: LabelMap | None, grid: Grid) -> Template:
    digest = hashlib.sha256(np.rint(image.numpy() * 1e4).astype(np.int32).tobytes())
    digest.update(np.round(grid.affine, 4).astype(np.float32).tobytes())
    if dseg is None:
        return Template(name, image, None, (), grid, digest.hexdigest())
    digest.update(numbered(dseg.labels, dseg.numbers).numpy().astype(np.int32).tobytes())
    digest.update("\n".join(dseg.names).encode())
    return Template(name, image, dseg.labels, dseg.names, grid, digest.hexdigest(), dseg.numbers)


@lru_cache(maxsize=1)
def _mni152() -> Template:
    nilearn = find_spec("nilearn")  # its file alone: importing nilearn takes a second
    if nilearn is None or nilearn.origin is None:
        raise UserError(f"{MNI152} comes with nilearn, which is not installed: pip install nilearn")
    loaded = open_image(Path(nilearn.origin).with_name("datasets") / "data" / MNI152_FILE)
    voxels = np.asarray(loaded.dataobj).astype(np.float32)
    counts = np.rint(voxels / voxels.max() * 255).astype(np.uint8)
    found = hashlib.sha256(counts.tobytes()).hexdigest()
    if found != MNI152_SHA256:
        raise UserError(
            f"nilearn's MNI152 template has hash {found}, expected {MNI152_SHA256}: another nilearn release?"
        )
    array, grid = to_memory(counts.astype(np.float32) / 255, np.asarray(loaded.affine))
    image = normalize(torch.from_numpy(array).unsqueeze(0), MNI152)
    folder = files("cortexgen.atlas") / "templates"
    dseg_path, table = (Path(str(folder / f"tpl-{MNI152}_{end}")) for end in ("res-1_dseg.nii.gz", "dseg.tsv"))
    dseg = read_labels(dseg_path, table)
    if not dseg.grid.matches(grid):
        raise UserError(f"the packaged labels do not lie on nilearn's grid: {dseg.grid} against {grid}")
    return _finish(MNI152, image, dseg, grid)
