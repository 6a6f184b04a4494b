"""What readers of studies find, before anything is chosen."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortexgen.io.bids import Row


@dataclass(frozen=True)
class Candidate:
    """An image of a study, or what a table says should be one.

    Attributes:
        subject, session: labels without their prefix; session is "" where there are none.
        path: the NIfTI file, or the folder of a DICOM series.
        where: the path inside the study, which patterns are compared with and problems name.
        covariates: under common names; empty where no table has them.
        order: of the visits of a subject.
        baseline: whether the study calls the visit so.
        usual: whether it is taken when the user gives no pattern.
        absent: whether it is a row of a table without any image, which fits every pattern.
        problem: why it cannot be used.
    """

    subject: str
    session: str
    path: Path
    where: str
    covariates: Row = field(default_factory=dict)
    order: tuple[Any, ...] = ()
    baseline: bool = False
    usual: bool = True
    absent: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """ "sub-01" or "sub-01_ses-1"."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")


def label(text: str) -> str:
    """Letters and digits of a text, as BIDS labels are; accents dropped, a text that has none of them hashed."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    found = re.sub(r"[^A-Za-z0-9]", "", plain)
    return found or (hashlib.sha256(text.encode()).hexdigest()[:8] if text else "")


def natural(text: str) -> tuple[Any, ...]:
    """A key that sorts m6 before m12."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", text.lower()))


def is_nifti(path: Path) -> bool:
    """Judged by the name; hidden files are none."""
    return path.name.lower().endswith((".nii", ".nii.gz")) and not path.name.startswith(".")


def is_analyze(path: Path) -> bool:
    """Whether the name is of one file of a pair, Analyze 7.5's or NIfTI's."""
    return path.name.lower().endswith((".img", ".hdr", ".img.gz", ".hdr.gz")) and not path.name.startswith(".")


def unreadable(path: Path) -> str:
    """Why there is nothing behind a path, "" if there is."""
    if path.exists():
        return ""
    return (
        f"{path}: a link to nothing (has its content been downloaded?)"
        if path.is_symlink()
        else f"{path}: no such file"
    )


def folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder from `root` down that holds files, with these sorted; links are followed, circles are not."""
    seen = set()
    for place, inside, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside.sort()
        if files:
            yield Path(place), [Path(place, name) for name in sorted(files)]
