"""What stage 1 trains on: the template, and each subject of a cohort."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import DataLoader, Subset

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.template import MNI152, load_template
from cortexgen.data.augmentation import Augmentation
from cortexgen.data.cache import Cache, Caching, cache_folder, open_cache
from cortexgen.data.cohort import Scan, read_cohort, split_subjects
from cortexgen.data.cohorts import Roots, all_scans, by_cohort, place, read_cohorts
from cortexgen.data.loading import DECODING, Predictions, ScanReader, Scans
from cortexgen.data.module import StageDataModule
from cortexgen.data.patches import PatchSampler
from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, read_grid
from cortexgen.io.header import Form
from cortexgen.io.output import settings


class RegistrationDataModule(StageDataModule):
    """Pairs (template, subject) of a cohort, or of several, of skull-stripped T1w in template space.

    Arguments:
        root: BIDS derivatives with `sub-*/[ses-*/]anat/*_T1w.nii.gz`, all on one grid, and participants.tsv; or a
            list of such: a covariate `cohort` then says which one a subject is of, and goes into the names of those
            whose id two of them have.
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
        augmentation: "none", "mirror" (left-right), "paper" (flips and quarter turns) or "scanner" (mirror, and another
            bias field, contrast and noise of the fixed image).
        pairs: share of training pairs that take another training subject as moving image instead of the template.
        patch: train on parts of this size (D, H, W), for images too large to be worked on whole; what is learned
            registers whole images.
        batch_size: of training, on one device.
        only: predict the scans of one side of the split instead of all.
        whole: where `crop` is a size, predict also writes the field and the warped template on the whole image, with a
            picture; the field fades out beyond the part that was worked on.
        num_workers: loading processes.
        cache: keep decoded images (float16) in "memory", which is also `true`, on "disk", for cohorts that don't fit in
            memory, or not at all ("none", `false`).
        cache_dir: folder of a disk cache, which runs and processes may share; one for the cohort in
            $XDG_CACHE_HOME/cortexgen or ~/.cache/cortexgen unless given. It can be deleted at any time.
        trust: "sform" or "qform", the one to take where a file's two differ, which is refused unless it is given.
        orientation: where the axes run to ("LAS") of files whose header doesn't say it, which are refused otherwise.
    """

    def __init__(
        self,
        root: Roots,
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
        patch: list[int] | None = None,
        batch_size: int = 1,
        only: Literal["train", "val", "test"] | None = None,
        whole: bool = False,
        num_workers: int = 0,
        cache: Caching | bool = "memory",
        cache_dir: Path | None = None,
        trust: Form | None = None,
        orientation: str | None = None,
    ) -> None:
        super().__init__(root, batch_size, num_workers)
        self.only, self.whole = only, whole
        self.template_source = (template, template_labels, label_table, trust)
        self.choice = HeaderChoice(trust, orientation)
        self.patterns = (image, labels)
        self.spacing, self.crop = spacing, crop
        self.splitting: dict[str, Any] = {"val": val, "test": test, "seed": split_seed}
        self.splitting |= {"val_subjects": val_subjects, "test_subjects": test_subjects}
        self.augmentation, self.pairs, self.patch = augmentation, pairs, patch
        self.caching, self.cache_dir = cache, cache_dir

    def setup(self, stage: str) -> None:
        """Read the cohort's headers, choose the working grid and the split, load what fits the cache."""
        if isinstance(self.crop, list) and (len(self.crop) != 3 or min(self.crop) < 2):
            raise UserError(f"crop: expected three sizes D, H, W of 2 and more, got {self.crop}")
        if not 0 <= self.pairs <= 1:
            raise UserError(f"pairs: expected a share between 0 and 1, got {self.pairs}")
        if self.spacing is not None and self.spacing <= 0:
            raise UserError(f"spacing: expected millimetres above zero, got {self.spacing}")
        if not self.scans:
            self.cohorts = read_cohorts(self.folders, self._find)
            self.scans = all_scans(self.cohorts)
            self.native = self._common_grid()
            self.original = load_template(*self.template_source)
            grid = self.native.at_spacing(self.spacing) if self.spacing else self.native
            if self.crop == "brain":
                grid = brain_box(self.original.to(grid))
            elif self.crop:
                grid = grid.window(self.crop)
            self.grid = grid
            self.template = self.original.to(grid)
            called = [cohort.called for cohort in self.cohorts]
            self.split = split_subjects([s.subject for s in self.scans], **self.splitting, cohorts=called)
            classes = [len(self.template.classes), *self.template.numbers]
            self.recipe = [DECODING, grid.to_dict(), *classes, self.choice.describe()]
            self.reader = ScanReader(self.native, grid, self.template, self.choice, self.open_cache())
        if self.augmentation in ("mirror", "scanner") and not self.grid.is_symmetric():
            raise UserError(f"mirroring needs a grid symmetric about x = 0; the working grid is {self.grid}")
        if self.augmentation == "paper" and self.grid.shape[1] != self.grid.shape[2]:
            raise UserError(
                f"augmentation: paper turns axial slices, which must be square; the working grid is {self.grid}: "
                "set a crop such as [32, 128, 128]"
            )
        if stage != "predict" and self.caching not in ("none", False):
            sides = {"fit": ("train", "val"), "validate": ("val",), "test": ("test", "val")}[stage]
            scans = [scan for side in sides for scan in self.side(side)]
            self._read_once(
                scans, lambda s: self.reader.read(s, self.split[s.subject] != "train"), "reading images", "scan"
            )
        if stage == "fit" and not self.side("train"):
            raise UserError(f"{place(self.roots)}: no readable subject is left to train on")

    def open_cache(self, *recipe: Any) -> Cache:
        """A cache of what images are decoded to; of what is made of them, with what else that depends on."""
        return open_cache(self.caching, self.cache_dir or cache_folder(*self.roots), [*self.recipe, *recipe])

    def _find(self, root: Path) -> list[Scan]:
        """The scans of a folder."""
        return read_cohort(root, *self.patterns)

    def _common_grid(self) -> Grid:
        """The grid of most scans; the others become problems."""
        groups: list[tuple[Grid, list[Scan]]] = []
        for scan, grid in self._readable(self.scans, lambda scan: read_grid(scan.image, self.choice)):
            for known, members in groups:
                if known.matches(grid):
                    members.append(scan)
                    break
            else:
                groups.append((grid, [scan]))
        if not groups:
            raise self._none_readable("images")
        (common, _), *others = sorted(groups, key=lambda group: -len(group[1]))
        for grid, members in others:
            for scan in members:
                self._leave_out(scan, f"{scan.image}: its grid is {grid}; the cohort's is {common}")
        self._require_each()
        return common

    def image_of(self, scan: Scan) -> Tensor:
        """A scan's image on the working grid, `[1, D, H, W]` float32."""
        return self.reader.image(scan)

    def contract(self) -> dict[str, Any]:
        """What weights trained on these data depend on, in plain types."""
        template, grid = self.template_contract(), self.grid.to_dict()
        found = {name: settings(root / "dataset_description.json") or {} for name, root in self.folders.items()}
        made_by = by_cohort({name: description.get("GeneratedBy", []) for name, description in found.items()})
        return {"template": template, "grid": grid, "preprocessing": made_by}

    def samples(self, scans: Sequence[Scan], training: bool = False) -> Scans:
        """Pairs, for training without labels."""
        if training:
            patches = PatchSampler(self.patch, self.grid, self.template.mask) if self.patch else None
            return Scans(self.reader, scans, False, self.augmentation, self.pairs, patches)
        return Scans(self.reader, scans, labelled=True)

    def predict_dataloader(self) -> DataLoader:
        """Every scan of the cohort, or of one side, one by one."""
        chosen = [i for i, s in enumerate(self.scans) if self.only in (None, self.split[s.subject])]
        dataset = Subset(Predictions(self.reader, self.scans, self.problems), chosen)
        return DataLoader(dataset, collate_fn=itemgetter(0), num_workers=self.num_workers)
