"""What readers of studies find, before anything is chosen."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortexgen.io.bids import Row
from cortexgen.io.paths import hidden, name_of


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
        return name_of(self.subject, self.session)


def natural(text: str) -> tuple[Any, ...]:
    """A key that sorts m6 before m12."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", text.lower()))


def named_folders(root: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Folders whose names fit a pattern in `root`, or up to two levels below."""
    for level in ("*", "*/*", "*/*/*"):
        found = sorted(p for p in root.glob(level) if pattern.fullmatch(p.name) and p.is_dir())
        if found:
            return found
    return []


def folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder from `root` down that holds files, with these sorted; links are followed, circles are not.

    Hidden folders and files are left out.
    """
    seen = set()
    for place, inside, files in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        shown = [path for path in (Path(place, name) for name in sorted(files)) if not hidden(path)]
        if shown:
            yield Path(place), shown
