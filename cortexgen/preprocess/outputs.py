"""What a preprocessed scan leaves on disk."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cortexgen.data.cohort import Scan
from cortexgen.io import Grid, write_json, write_volume
from cortexgen.io.bids import STRIPPED, Row, anat, derivative, sidecar
from cortexgen.io.itk import write_affine
from cortexgen.io.labels import label_type
from cortexgen.io.output import read_record, record_path
from cortexgen.io.paths import visible
from cortexgen.preprocess.state import Subject


class Outputs:
    """The files of one scan under `out`.

    Attributes:
        metrics: the scan's row, written last.
        sheet: the picture of the result.

    Raises:
        UserError: if the scan has no BIDS name, or its files would lie outside of `out`.
    """

    def __init__(self, out: Path, scan: Scan) -> None:
        from cortexgen.figures.scan_sheet import sheet_path  # matplotlib takes a second

        self.out, self.scan = Path(out), scan
        self.metrics = record_path(self.out, scan.name, "preproc")
        self.sheet = sheet_path(self.out, scan.name)

    def done(self, made: Mapping[str, Any]) -> Row | None:
        """The row of a scan that is there, made of the same source by the same steps."""
        found = read_record(self.metrics)
        return found.get("Row") if all(found.get(key) == value for key, value in made.items()) else None

    def remove(self) -> None:
        """Take away what was written, the row that says it is complete first."""
        folder, name = self.metrics.parent, self.scan.name
        endings = ("*_desc-preproc_T1w.*", "*_desc-brain_mask.*", "*_dseg.*", "*_from-T1w_to-*_mode-image_xfm.*")
        files = [path for ending in endings for path in visible(folder, name + ending)]
        for path in [self.metrics, self.sheet, *files]:
            path.unlink(missing_ok=True)
        for empty in (folder, folder.parent, self.sheet.parent, self.sheet.parent.parent):
            with suppress(OSError):  # not there, or not empty
                empty.rmdir()

    def write(
        self,
        subject: Subject,
        steps: Sequence[Mapping[str, Any]],
        native: tuple[Tensor, Grid],
        labels: Tensor | None = None,
    ) -> None:
        """Write image, masks, labels, affine, sidecars and the picture.

        Arguments:
            steps: `Pipeline.describe()`.
            native: image and grid as they were read.
            labels: on the grid of the image, with the numbers that files give them.
        """
        from cortexgen.figures import subject_sheet, write_png

        name, template = self.scan.name, subject.template.name
        assert subject.mask is not None
        sources = {"Sources": [self.scan.image.name]}
        about = {**sources, **STRIPPED, "Preprocessing": list(steps)}
        space = {"space": template} if subject.resampled else {}
        here: dict[str, Any] = {"SpatialReference": template} if subject.resampled else {}
        path = derivative(self.out, name, "T1w", **space, desc="preproc")
        normalized = any(step["name"] == "normalize" for step in steps)
        write_volume(path, subject.image, subject.grid, np.uint8 if normalized else np.float32)
        write_json(sidecar(path), {**here, **about})
        if labels is not None and self.scan.labels:
            path = derivative(self.out, name, "dseg", **space)
            write_volume(path, labels, subject.grid, label_type(int(labels.max())))
            write_json(sidecar(path), {**here, "Sources": [self.scan.labels.name]})
        native_mask, native_grid = subject.native or (subject.mask, subject.grid)

        def write_mask(mask: Tensor, grid: Grid, **space: str) -> None:
            path = derivative(self.out, name, "mask", **space, desc="brain")
            write_volume(path, mask, grid, np.uint8)
            write_json(sidecar(path), {**(here if space else {}), "Type": "Brain", **sources})

        write_mask(native_mask, native_grid)
        if subject.affine is not None:
            path = anat(self.out, name) / f"{name}_from-T1w_to-{template}_mode-image_xfm.txt"
            write_affine(path, subject.affine)
            write_json(path.with_suffix(".json"), {**here, **about})
        if subject.resampled:
            write_mask(subject.mask, subject.grid, **space)
            made, raw = (subject.image, subject.mask, subject.grid), (native[0], native_mask, native[1])
            write_png(self.sheet, subject_sheet(*made, subject.template, name, subject.flags, raw))
