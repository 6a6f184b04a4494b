"""What stage 2 trains on: the velocity fields that stage 1 wrote."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.data.augmentation import augment
from cortexgen.data.cache import Cache, Caching, cache_folder, open_cache, remember
from cortexgen.data.cohort import Scan, read_cohort, split_subjects
from cortexgen.data.cohorts import Roots, all_scans, by_cohort, place, read_cohorts
from cortexgen.data.module import StageDataModule
from cortexgen.data.order import TrainingSamples
from cortexgen.data.registered import TABLE, recorded_sides
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, read_field_grid
from cortexgen.io.bids import sidecar
from cortexgen.io.header import Form
from cortexgen.io.output import settings
from cortexgen.spatial import antialias, mirrored, resample_field

AGREED = ("Template", "TemplateHash", "IntegrationSteps", "ImageGrid")  # what the sidecars must have in common
IN_MEMORY = 1 << 30  # bytes of all fields that each process keeps, unless told otherwise
DECODING = 3  # raised when `read_field`, or what is made of the fields, gives something else


@dataclass(frozen=True)
class _Fields(TrainingSamples):
    data: "FieldDataModule"
    scans: Sequence[Scan]
    mirror: bool

    def sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        scan = self.scans[index]
        sample = augment({"velocity": self.data.velocity_of(scan)}, "mirror" if self.mirror else "none", generator)
        return sample | {"covariates": scan.covariates, "name": scan.name}


class FieldDataModule(StageDataModule):
    """Velocity fields of a registered cohort, with its covariates.

    Without explicit settings the split is the one that stage 1 recorded in registration.tsv, so that a subject held
    out there is held out here.

    Arguments:
        root: what `cortexgen predict` wrote for stage 1 (BIDS derivatives with `*_desc-velocity_field.nii.gz`); or
            several such folders, as for stage 1.
        template: the one that the fields start from: "MNI152NLin2009aSym", or a NIfTI file.
        template_labels: the dseg of a template file, on its grid.
        label_table: names of its classes, a tab-separated file with columns index and name.
        fields: file name pattern of the velocity fields.
        val: validation subjects, a fraction below 1 or a number; stage 1's unless given.
        test: test subjects, likewise.
        val_subjects: explicit validation subjects.
        test_subjects: explicit test subjects.
        split_seed: of the random split.
        mirror: show each field's mirror image half of the time.
        batch_size: of training, on one device.
        num_workers: loading processes.
        trust: "sform" or "qform", the one to take where those of a template's file differ.
        spacing: work on a grid of this voxel size in millimetres where the fields' is finer; on their own unless given.
        cache: keep decoded fields in "memory", which is also `true`, on "disk", for cohorts that don't fit in
            memory, or not at all ("none", `false`); "auto" is "memory" up to 1 GiB and "disk" beyond.
        cache_dir: folder of a disk cache and of what all training fields say, which runs and processes may share; one
            for the cohort in $XDG_CACHE_HOME/cortexgen or ~/.cache/cortexgen unless given. It can be deleted at any
            time.
    """

    def __init__(
        self,
        root: Roots,
        template: str = MNI152,
        template_labels: Path | None = None,
        label_table: Path | None = None,
        fields: str = "*_desc-velocity_field.nii*",
        val: float | None = None,
        test: float | None = None,
        val_subjects: list[str] | None = None,
        test_subjects: list[str] | None = None,
        split_seed: int = 0,
        mirror: bool = True,
        batch_size: int = 1,
        num_workers: int = 0,
        trust: Form | None = None,
        spacing: float | None = None,
        cache: Caching | Literal["auto"] | bool = "auto",
        cache_dir: Path | None = None,
    ) -> None:
        super().__init__(root, batch_size, num_workers)
        self.template_source = (template, template_labels, label_table, trust)
        self.pattern = fields
        self.splitting = {"val": val, "test": test, "val_subjects": val_subjects, "test_subjects": test_subjects}
        self.split_seed = split_seed
        self.mirror, self.spacing = mirror, spacing
        self.caching, self.cache_dir = cache, cache_dir or cache_folder(*self.roots)

    def setup(self, stage: str) -> None:
        """Read the fields and check that they belong together and to the template."""
        if self.scans or (stage == "predict" and not all(map(Path.is_dir, self.roots))):
            return
        self.cohorts = read_cohorts(self.folders, lambda root: read_cohort(root, self.pattern))
        scans = all_scans(self.cohorts)
        self.template = load_template(*self.template_source)
        self.info = self._read(scans)
        self._fill([s for s in scans if s.name not in self.problems])
        self.scans = [s for s in scans if s.name not in self.problems]
        if not self.scans:
            raise self._none_readable("fields")
        self._require_each()
        if self.mirror and not self.grid.is_symmetric():
            raise UserError(
                f"mirroring needs a grid symmetric about x = 0; the fields' is {self.grid}: set mirror: false"
            )
        self.split = self._split()

    def _read(self, scans: Sequence[Scan]) -> dict[str, Any]:
        """All headers and sidecars; returns what they agree upon."""
        found = self._readable(scans, lambda scan: (read_field_grid(scan.image), sidecar_of(scan.image)))
        if not found:
            raise self._none_readable("fields")
        self.written, common = found[0][1]
        for scan, (grid, info) in found:
            for key in AGREED:
                if info[key] != common[key]:
                    raise UserError(f"{scan.image}: {key} is {info[key]}; the fields before it have {common[key]}")
            if not grid.matches(self.written):
                raise UserError(f"{scan.image}: its grid is {grid}; the fields before it have {self.written}")
        if common["TemplateHash"] != self.template.hash:
            raise UserError(
                f"the fields start from template {common['Template']} ({common['TemplateHash'][:12]}), "
                f"the data module has {self.template.name} ({self.template.hash[:12]})"
            )
        self.grid = coarser(self.written, self.spacing)
        infos = {scan.name: info.get("Preprocessing", []) for scan, (_, info) in found}
        each = {c.name: [infos[scan.name] for scan in c.scans if scan.name in infos] for c in self.cohorts}
        return common | {"Preprocessing": by_cohort({name: next(iter(made), []) for name, made in each.items()})}

    def _fill(self, scans: Sequence[Scan]) -> None:
        """Decode every field once."""
        kind = self.caching
        if kind == "auto":
            kind = "memory" if 12 * math.prod(self.grid.shape) * len(scans) <= IN_MEMORY else "disk"
        recipe = ["field", DECODING, *([] if self.grid is self.written else [self.grid.to_dict()])]
        self._cache: Cache = open_cache(kind, self.cache_dir, recipe)
        self._read_once(scans, lambda s: s.image in self._cache or self.velocity_of(s), "reading fields", "field")

    def _split(self) -> dict[str, str]:
        """Stage 1's, or the one that is asked for.

        Raises:
            UserError: if stage 1's is not whole, or leaves nobody to train on.
        """
        subjects = sorted({s.subject for s in self.scans})
        table = place([root / TABLE for root in self.roots])
        called = [cohort.called for cohort in self.cohorts]
        recorded = {
            c.called.get(s, f"{c.root}/{s}"): sides for c in self.cohorts for s, sides in recorded_sides(c.root).items()
        }
        asked = {k: v for k, v in self.splitting.items() if v is not None}
        how = "choose with --data.val (a share or a number) or --data.val_subjects"
        if asked or not recorded:
            if not asked:
                warnings.warn(f"{table}: no split of stage 1 is recorded; a new one is drawn; {how}", stacklevel=2)
            chosen: dict[str, Any] = {"val": 0.1, "test": 0.0} | asked
            split = split_subjects(subjects, seed=self.split_seed, cohorts=called, **chosen)
            seen = [s for s in subjects if split[s] == "train" and recorded.get(s, set()) & {"val", "test"}]
            if seen:
                names = _some(seen)
                warnings.warn(f"{len(seen)} subject(s) that stage 1 held out are trained on: {names}", stacklevel=2)
            return split
        lacking = [s for s in subjects if s not in recorded]
        if lacking:
            which = f"{len(lacking)} of {len(subjects)} subjects have no side ({_some(lacking)})"
            raise UserError(f"{table}: {which}, the others have stage 1's: let `cortexgen predict` finish, or {how}")
        unclear = [s for s in subjects if len(recorded[s]) > 1 or not recorded[s] <= {"train", "val", "test"}]
        if unclear:
            which = f"{unclear[0]} is on the sides {', '.join(sorted(recorded[unclear[0]]))}"
            raise UserError(f"{table}: {len(unclear)} subject(s) have no clear side of the split; {which}: {how}")
        split = {s: next(iter(recorded[s])) for s in subjects}
        if "train" not in split.values():
            raise UserError(f"{table}: none of its {len(subjects)} subjects was trained on by stage 1; {how}")
        return split

    def velocity_of(self, scan: Scan) -> Tensor:
        """`[3, d, h, w]` in voxels of `grid`, smoothed first where that is coarser than the field's own."""
        return self._cache.get(scan.image, lambda: coarse_field(read_field(scan.image)[0], self.written, self.grid))

    def shown(self) -> Iterator[Tensor]:
        """What training shows of each scan: the velocity, and its mirror image if `mirror`, `[k, 3, d, h, w]`."""
        for scan in self.side("train"):
            field = self.velocity_of(scan)[None]
            yield torch.cat([field, mirrored(field)]) if self.mirror else field

    def remembered(self, name: str, options: object, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `make` gives for the training fields and these options (plain types); see `cache.remember`."""
        scans = [[s.name, str(s.image), s.image.stat().st_size, s.image.stat().st_mtime_ns] for s in self.side("train")]
        key = [DECODING, scans, [s.covariates for s in self.side("train")], self.mirror, self.contract(), options]
        return remember(self.cache_dir, name, key, make)

    def training_fields(self) -> Tensor:
        """Every training velocity, then their mirror images if `mirror`: `[N, 3, d, h, w]`, all in memory."""
        fields = torch.stack([self.velocity_of(s) for s in self.side("train")])
        return torch.cat([fields, mirrored(fields)]) if self.mirror else fields

    def contract(self) -> dict[str, Any]:
        """What weights trained on these fields depend on, in plain types."""
        return {
            "template": self.template_contract(),
            "template_source": [None if s is None else str(s) for s in self.template_source],
            "grid": self.grid.to_dict(),
            "image_grid": self.info["ImageGrid"],
            "integration_steps": self.info["IntegrationSteps"],
            "preprocessing": self.info.get("Preprocessing", []),
        }

    def samples(self, scans: Sequence[Scan], training: bool = False) -> _Fields:
        """Fields, in training mirrored half of the time if `mirror`."""
        return _Fields(self, scans, training and self.mirror)

    def predict_dataloader(self) -> DataLoader:
        """The numbers of the samples to draw, which the module knows."""
        return cast(Trainer, self.trainer).lightning_module.predict_dataloader()


def coarse_field(field: Tensor, written: Grid, grid: Grid) -> Tensor:
    """A field `[3, D, H, W]` in voxels of `written`, on `grid` and in voxels of that: the same one, or a coarser one,
    for which it is smoothed first."""
    if grid is written:
        return field
    factors = [b / a for a, b in zip(written.spacing, grid.spacing, strict=True)]
    return resample_field(antialias(field[None], factors), written.torch_affine, grid.shape, grid.torch_affine)[0]


def coarser(grid: Grid, spacing: float | None) -> Grid:
    """The grid of that spacing: of the same first voxel, as stage 1's own, or of the same centre where the other side
    would then lie elsewhere."""
    if spacing is not None and not 0 < spacing < math.inf:
        raise UserError(f"spacing: expected millimetres above 0, got {spacing:g}")
    if spacing is None or spacing < min(grid.spacing) * 1.001:
        return grid
    factor = round(spacing / grid.spacing[0])
    nested = grid.coarse(factor)
    whole = np.allclose(nested.spacing, spacing, rtol=1e-3) and min(nested.shape) > 1
    return nested if whole and nested.is_symmetric() == grid.is_symmetric() else grid.at_spacing(spacing)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def sidecar_of(field: Path) -> dict[str, Any]:
    """What a velocity field's sidecar says.

    Raises:
        UserError: if there is none, or not all that a field needs.
    """
    path = sidecar(field)
    info = settings(path)
    if info is None:
        raise UserError(f"{path}: the field has no sidecar; was it written by cortexgen?")
    missing = [key for key in AGREED if key not in info]
    if missing:
        raise UserError(f"{path}: {', '.join(missing)} missing; was it written by cortexgen?")
    return info
