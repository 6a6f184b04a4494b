"""What a study says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cortexgen.studies.candidates import Candidate

Several = Literal["refuse", "first", "last"]


@dataclass(frozen=True)
class Study:
    """A study's layout, found by name in the registry.

    Attributes:
        layout: what is looked for, in words for errors.
        fits: whether a folder, or file, is laid out so.
        read: every image of such a folder, with its covariates; may be given their table.
        order: those of smaller numbers are asked first whether a folder is theirs; what fits everything comes last.
        several: what to do with several images of a visit, where the user doesn't say it.
        files: whether it can be a file.
    """

    layout: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Path | None], list[Candidate]]
    order: int = 50
    several: Several = "refuse"
    files: bool = False
