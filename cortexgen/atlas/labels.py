"""Label maps as the library works with them: classes 0 to K - 1, whatever numbers and names their files give them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, read_volume
from cortexgen.io.header import NO_CHOICE
from cortexgen.io.tables import read_table
from cortexgen.spatial import present_labels, resample_labels

DENSE = 256  # numbers below it are classes themselves, gaps included
BACKGROUND = "Background"
TAKEN = ("before",)  # as in dice_before


@dataclass(frozen=True)
class LabelMap:
    """A label map by classes.

    Attributes:
        labels: `[1, D, H, W]`, int64, indices of `numbers` and `names`.
        grid: where it lies.
        numbers: of the classes in files, ascending; that of class 0 is 0.
        names: of the classes, no two alike.
        source: its file, for errors.
    """

    labels: Tensor
    grid: Grid
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    source: object = "labels"

    def to(self, grid: Grid) -> "LabelMap":
        """On another grid.

        Raises:
            UserError: if none of the labels is there.
        """
        if grid.matches(self.grid):
            return self
        labels = labels_on(self.labels, self.grid, grid)
        if self.labels.any() and not labels.any():
            raise UserError(
                f"{self.source}: none of its labels lies in the image; they are on {self.grid}, it on {grid}"
            )
        return replace(self, labels=labels, grid=grid)


def labels_on(labels: Tensor, grid: Grid, target: Grid) -> Tensor:
    """A label map `[1, D, H, W]` on another grid: the label of the largest resampled indicator."""
    return resample_labels(labels, grid.torch_affine, target.shape, target.torch_affine)


def read_labels(path: Path, table: Path | None = None, choice: HeaderChoice = NO_CHOICE) -> LabelMap:
    """Read a label map; its classes are the rows of a table and what occurs, or are numbered without one.

    Numbers below 256 stay as they are, and those between them are classes, too; of larger ones, only those that occur
    or that the table names.

    Raises:
        UserError: if the file can't be read, a label is negative, or has no name in the table.
    """
    labels, grid = read_volume(path, labels=True, choice=choice)
    present = present_labels(labels).tolist()
    if present[0] < 0:
        raise UserError(f"{path}: labels must not be negative, found {present[0]}")
    named = {} if table is None else {0: BACKGROUND} | read_label_table(table)
    unnamed = [k for k in present if k not in named] if table else []
    if unnamed:
        more = ", ..." if len(unnamed) > 8 else ""
        raise UserError(f"{table}: no name for label {', '.join(map(str, unnamed[:8]))}{more} of {path}")
    numbers = class_numbers([*present, *named])
    names = distinct({k: named.get(k, f"label-{k}") for k in numbers})
    return LabelMap(classes_of(labels, numbers), grid, tuple(numbers), tuple(names.values()), path)


def class_numbers(found: Iterable[int]) -> list[int]:
    """The numbers of classes, 0 among them: below 256 with the gaps between them, with larger ones as they are."""
    numbers = sorted({0, *found})
    return numbers if numbers[-1] >= DENSE else list(range(numbers[-1] + 1))


def classes_of(labels: Tensor, numbers: Sequence[int], path: object = "") -> Tensor:
    """Classes of a label map of a file.

    Raises:
        UserError: if a label is none of the classes' numbers.
    """
    known = torch.tensor(numbers)
    present = present_labels(labels)
    unknown = present[~torch.isin(present, known)].tolist()
    if unknown:
        raise UserError(f"{path}: label {unknown[0]} is not among the {len(numbers)} classes of the moving labels")
    return labels if len(numbers) == numbers[-1] + 1 else torch.searchsorted(known, labels)


def numbered(labels: Tensor, numbers: Sequence[int]) -> Tensor:
    """Classes as the numbers that files give them; () stands for 0, 1, 2, ..."""
    return torch.tensor(numbers, device=labels.device)[labels] if numbers else labels


def distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Names of classes, those that several have with the number: columns of tables are called after them."""
    counts = Counter([*names.values(), *TAKEN])
    if counts.total() == len(counts):
        return dict(names)
    return distinct({k: f"{name} ({k})" if counts[name] > 1 else name for k, name in names.items()})


def read_label_table(path: Path) -> dict[int, str]:
    """Number and name of each class, from a BIDS `dseg.tsv` (columns index and name).

    Raises:
        UserError: if a column is missing, an index is no whole number, or one has two names.
    """
    rows = read_table(path)
    if not {"index", "name"} <= set(rows[0]):
        raise UserError(f"{path}: expected columns index and name, found {', '.join(rows[0])}")
    names: dict[int, str] = {}
    for row in rows:
        try:
            index = float(row["index"])
            number = int(index)
        except (ValueError, OverflowError):
            index, number = 0.5, 0
        if index != number:
            raise UserError(f"{path}: expected whole numbers in the column index, found {row['index']!r}")
        name = " ".join(row["name"].split()) or f"label-{number}"
        if names.setdefault(number, name) != name:
            raise UserError(f"{path}: index {number} has two names, {names[number]} and {name}")
    return {number: name for number, name in names.items() if number >= 0}
