"""A scan's label map, which goes along with its image."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cortexgen.atlas.colours import TABLE, write_viewer_tables
from cortexgen.atlas.labels import numbered, read_label_table, read_labels
from cortexgen.data.cohort import Scan, own_labels
from cortexgen.errors import UserError
from cortexgen.io import HeaderChoice
from cortexgen.io.atomic import write_text
from cortexgen.io.naming import is_nifti, named_after
from cortexgen.io.paths import visible
from cortexgen.preprocess.state import Subject
from cortexgen.spatial import resample_labels


def with_labels(scans: Sequence[Scan], pattern: str) -> tuple[list[Scan], dict[str, str]]:
    """Scans with the label maps beside their images, where there are some, and why others can't be used.

    Arguments:
        pattern: of the file's name, whatever the case; it must fit one file of a scan.

    Raises:
        UserError: if no scan has one.
    """
    found, problems = [], {}
    for scan in scans:
        files = [p for p in visible(scan.image.parent) if is_nifti(p) and named_after(p) == named_after(scan.image)]
        maps = own_labels([p for p in files if fnmatchcase(p.name.lower(), pattern.lower()) and p != scan.image])
        if len(maps) > 1:
            shown = ", ".join(p.name for p in maps[:3])
            problems[scan.name] = f"{len(maps)} files fit {pattern!r} ({shown}); give a pattern that fits one"
        else:
            found.append(replace(scan, labels=maps[0] if maps else None))
    if not problems and not any(scan.labels for scan in found):
        raise UserError(f"labels: no file beside {scans[0].image} or another image fits {pattern!r}")
    return found, problems


def take_table(source: Path, out: Path) -> None:
    """Copy the names of a data set's classes, if it has them, and make viewers' tables of them.

    Raises:
        UserError: if it is no table of labels, or there is another one already.
    """
    table, there = Path(source, TABLE), Path(out, TABLE)
    if not table.is_file():
        return
    names = read_label_table(table)
    if there.is_file() and read_label_table(there) != names:
        raise UserError(f"{there}: names other classes than {table}; give another folder")
    write_text(there, table.read_text(encoding="utf-8-sig"))
    write_viewer_tables(out)


def carried(path: Path, subject: Subject, choice: HeaderChoice) -> Tensor:
    """A label map where a preprocessed image lies, `[1, D, H, W]`: of each voxel the label with the largest share.

    Raises:
        UserError: if it can't be read, or none of it lies there.
    """
    dseg = read_labels(path, choice=choice)
    back = torch.from_numpy(np.linalg.inv(np.eye(4) if subject.affine is None else subject.affine))
    grid = subject.grid
    labels = resample_labels(dseg.labels, back @ dseg.grid.torch_affine, grid.shape, grid.torch_affine)
    if not labels.any():
        raise UserError(f"{path}: none of its labels lies in the preprocessed image")
    return numbered(labels, dseg.numbers)
