"""Measures of preprocessed scans, and which are outliers of the cohort."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortexgen.io.bids import Row

JUDGED_FROM, BEYOND = 8, 3.5  # scans; modified z-score


@dataclass(frozen=True)
class Measure:
    """A number that preprocessing reports of each scan.

    Attributes:
        least: what deviates from the median by less is no outlier, however alike the others are.
    """

    label: str
    unit: str = ""
    format: str = ".3f"
    least: float = math.inf

    @property
    def head(self) -> str:
        """The label and the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """With its unit."""
        return f"{value:{self.format}} {self.unit}".rstrip()


MEASURES = {
    "brain_volume_ml": Measure("Brain volume", "ml", ".0f", 50.0),
    "overlap": Measure("Overlap with template", least=0.01),
    "correlation": Measure("Correlation with template", least=0.05),
    "scale_1": Measure("Affine scale 1", least=0.02),
    "scale_2": Measure("Affine scale 2", least=0.02),
    "scale_3": Measure("Affine scale 3", least=0.02),
    "removed_ml": Measure("Removed", "ml", ".1f", 5.0),
    "seconds": Measure("Time", "s", ".0f"),
}


def flag_outliers(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Scans with a measure far from the cohort's, for somebody to look at.

    A value x is an outlier if its modified z-score, 0.6745 (x − m) / MAD, is beyond ±3.5, where m is the median and
    MAD the median of |x − m| (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993), and it is farther from m
    than `Measure.least`. Failed scans and missing values don't count; a measure that fewer than 8 scans have is not
    judged.

    Arguments:
        rows: of preprocess.tsv, with any of the keys of `MEASURES`.

    Returns:
        One sentence with numbers for each outlier, by participant_id, in the order of the rows.
    """
    found: dict[str, list[str]] = {str(row["participant_id"]): [] for row in rows}
    for key, measure in MEASURES.items():
        median, mad, reach = _spread(rows, key)
        for row in rows:
            if counts(row, key) and abs(row[key] - median) > reach:
                z = f"{0.6745 * (row[key] - median) / mad:+.3g}".replace("-", "−") if mad else "∞"
                text = f"{measure.label} = {measure.text(row[key])} (median {measure.text(median)}, modified z {z})"
                found[str(row["participant_id"])].append(text)
    return {name: texts for name, texts in found.items() if texts}


def counts(row: Row, key: str) -> bool:
    """Whether a scan was done and has a measure."""
    return row["status"] != "failed" and row.get(key) is not None and math.isfinite(row[key])


def _spread(rows: Sequence[Row], key: str) -> tuple[float, float, float]:
    """Median and MAD of a measure, and how far from the median an outlier begins; infinite if too few scans have it."""
    values = np.array([row[key] for row in rows if counts(row, key)], dtype=float)
    median = float(np.median(values)) if values.size else 0.0
    mad = float(np.median(np.abs(values - median))) if values.size >= JUDGED_FROM else math.inf
    return median, mad, max(BEYOND * mad / 0.6745, MEASURES[key].least)


def fence(rows: Sequence[Row], key: str) -> tuple[float, float]:
    """Median of a measure of `MEASURES`, and how far from it an outlier begins; infinite if it isn't judged."""
    median, _, reach = _spread(rows, key)
    return median, reach
