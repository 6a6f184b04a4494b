"""How well registered images fit the fixed ones: similarity, labels and Jacobians, against doing nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortexgen.data.cohort import Scan
from cortexgen.data.cohorts import Roots
from cortexgen.errors import UserError, reason
from cortexgen.evaluation.pairs import NO_REGISTRATION, Pairs, Sources
from cortexgen.evaluation.published import PAPER, REGISTRATION
from cortexgen.evaluation.reading import Brain
from cortexgen.evaluation.table import PUBLISHED, Column, Table, Value
from cortexgen.io import write_json
from cortexgen.io.bids import Row
from cortexgen.io.output import read_record
from cortexgen.io.paths import folder_within, within
from cortexgen.metrics.resampling import bootstrap_interval
from cortexgen.registration.measures import warped_measures
from cortexgen.runner.cohort import HERE, Runner

VERSION = 1  # raised when `warped_measures` gives something else for the same files
MEASURES = (  # the first two need labels, and are of each class, too
    Column("dice", "Dice", better="higher", format=".3f"),
    Column("hd95", "HD95", unit="mm", better="lower", format=".2f"),
    Column("psnr", "PSNR", unit="dB", better="higher", format=".2f"),
    Column("ssim", "SSIM", better="higher", format=".3f"),
    Column("ncc", "NCC", better="higher", format=".3f"),
    Column("brain_psnr", "PSNR in the brain", unit="dB", better="higher", format=".2f"),
    Column("brain_ssim", "SSIM in the brain", better="higher", format=".3f"),
    Column("brain_ncc", "NCC in the brain", better="higher", format=".3f"),
    Column("folded", "Folded share", better="lower", format=".2g"),
    Column("brain_folded", "Folded share in the brain", better="lower", format=".2g"),
    Column("brain_sd_log_jacobian", "SD of log |J| in the brain", format=".3f"),
)
NOTES = (
    "Means over n fixed images with their 95% bootstrap intervals.",
    "PSNR, SSIM and NCC are over the whole grid, background included, with data range 1; those in the brain are over "
    "the fixed image's foreground with its holes filled. Fixed images are divided by their robust maximum, registered "
    "ones in [0, 1] are taken as they are.",
    "Dice and HD95 are means over the classes. A class that neither label map has doesn't count; one that a single map "
    "lacks has a Dice of 0 and no HD95. Distances are between voxels' centres, in steps of the voxel size.",
    "Folded: the share of voxel cubes in which one of ten determinants of the pull-back field isn't positive (Liu et "
    "al., 2024). log |J| is of the same field, by central differences.",
    f"{NO_REGISTRATION.capitalize()}: the moving image on the fixed grid through affines only.",
)
ELSEWHERE = "Published figures were measured on other images, another grid and another field of view: not a ranking."


@dataclass(frozen=True)
class RegistrationEvaluation:
    """What an evaluation of registrations found.

    Attributes:
        rows: the measures of each subject and method: "participant_id", "method", the names of `MEASURES`,
            "dice_<class>" and "hd95_<class>"; a missing measure is None.
        tables: "registration", "registration_subjects" and, where there are labels, "registration_dice" and
            "registration_hd95".
        problems: why something is missing, by "sub-01" (a fixed image) or "method/sub-01".
        notes: how the rows were measured, and what was done to the images.
        classes: names of the labelled classes.
        pairs: what was compared, for pictures.
    """

    rows: list[Row]
    tables: dict[str, Table]
    problems: dict[str, str]
    notes: list[str]
    classes: list[str]
    pairs: Pairs

    @property
    def methods(self) -> list[str]:
        """Those that have rows, doing nothing first."""
        return list(dict.fromkeys(row["method"] for row in self.rows))

    @property
    def registered(self) -> list[str]:
        """Methods that have rows, without doing nothing."""
        return [method for method in self.methods if method != NO_REGISTRATION]

    def values(self, method: str, measure: str) -> Tensor:
        """A measure of a method's subjects, `[n]` float64, NaN where it is missing."""
        found = (row.get(measure) for row in self.rows if row["method"] == method)
        return torch.tensor([v if isinstance(v, int | float) else torch.nan for v in found], dtype=torch.float64)


def evaluate_registration(
    fixed: Roots,
    results: Mapping[str, Path],
    out: Path,
    sources: Sources = Sources(),  # noqa: B008
    runner: Runner = HERE,
) -> RegistrationEvaluation:
    """Measure registered images against the fixed ones, each pair on its fixed image's own grid.

    What was measured of a pair is kept in `out/registration/<method>/<subject>.json` and taken from there as long as
    its files don't change. Tables are written to `out/tables`.

    Arguments:
        fixed: a data set or folder of fixed images, with their label maps where there are some; or a list of such.
        results: the folder of each method's results by the method's name; images, label maps and fields in them go with
            the fixed images by name, and may all but the images be missing.
        out: folder to write to.
        sources: what is compared in the folders.
        runner: measures the pairs of each fixed image.

    Raises:
        UserError: if there are no fixed images, a method has none of theirs, or no pair at all can be measured.
    """
    out = Path(out)
    pairs = Pairs(fixed, results, sources)
    rows, problems = _measured(pairs, folder_within(out, "registration"), runner)
    classes = _classes(rows, pairs.classes)
    sets = (pairs.fixed, *pairs.results.values())
    notes = [*NOTES, *pairs.notes, *(note for brains in sets for note in brains.notes)]
    tables: dict[str, Table] = {}
    evaluation = RegistrationEvaluation(rows, tables, problems, notes, classes, pairs)
    if not evaluation.registered:
        where, why = next(iter(problems.items()))
        raise UserError(
            f"{pairs.fixed.path}: none of its images could be compared with a registered one; {where}: {why}"
        )
    tables |= _tables(evaluation)
    for name, table in tables.items():
        table.write(within(out, "tables", name))
    return evaluation


def _measured(pairs: Pairs, folder: Path, runner: Runner) -> tuple[list[Row], dict[str, str]]:
    """A row for each pair that could be measured, method by method, and what is wrong with the others."""
    problems = dict(pairs.fixed.problems)
    rows: dict[str, list[Row]] = {method: [] for method in pairs.methods}
    scans = {scan.name: scan for scan in pairs.scans if scan.name not in problems}
    found = runner.run(partial(_subject, pairs=pairs, folder=folder), scans, "comparing", "image")
    for name, subject in found.items():
        if subject["status"] == "failed":
            problems[name] = subject["reason"]
        for method, kept in subject.get("pairs", {}).items():
            if "row" in kept:
                rows[method].append({"participant_id": name, "method": method, **kept["row"]})
                sets = pairs.fixed, pairs.results.get(method, pairs.fixed)
                for brains, treatments in zip(sets, kept["treatments"], strict=True):
                    brains.recall(scans[name], treatments)
            if kept["problem"]:
                problems[f"{method}/{name}"] = kept["problem"]
    return [row for measured in rows.values() for row in measured], problems


def _subject(scan: Scan, pairs: Pairs, folder: Path) -> Row:
    """What is kept of each of a subject's pairs, under "pairs" by method; of one that failed only the problem."""
    found: dict[str, Row] = {}
    fixed: Brain | None = None
    for method in pairs.methods:
        path = within(folder, method, f"{scan.name}.json")
        try:
            key, kept = _key(pairs, method, scan), read_record(path)
        except Exception as error:
            found[method] = {"problem": reason(error)}
            continue
        if kept.get("key") != key:
            fixed = fixed or pairs.read_fixed(scan)
            try:
                kept = {"key": key, **_pair(pairs, method, scan, fixed)}
                write_json(path, kept)
            except Exception as error:
                kept = {"problem": reason(error)}
        found[method] = kept
    return {"status": "ok", "pairs": found}


def _pair(pairs: Pairs, method: str, scan: Scan, fixed: Brain) -> dict[str, Any]:
    """One pair's measures; a field that can't be used is a problem, and the others are there."""
    warped, field, problem = pairs.read(method, scan, fixed), None, None
    try:
        field = pairs.displacement(method, scan, fixed.grid)
    except Exception as error:
        problem = reason(error)
    labels = None if fixed.labels is None or warped.labels is None else (fixed.labels, warped.labels)
    row = warped_measures(fixed.image, warped.image, field, labels, fixed.grid.spacing, pairs.classes)
    return {"row": row, "problem": problem, "treatments": [fixed.treatments, warped.treatments]}


def _key(pairs: Pairs, method: str, scan: Scan) -> list[Any]:
    """What a row depends on, as JSON holds it."""
    files = [(path, path.stat()) for path in pairs.files(method, scan) if path.is_file()]
    key: list[Any] = [VERSION, [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in files]]
    key += [pairs.fixed.choice.describe()] if pairs.fixed.choice.describe() else []
    key.append([[k, name] for k, name in (pairs.classes or {}).items()])
    return [*key, pairs.moving.hash, pairs.moving_labels is not None] if method == NO_REGISTRATION else key


def _classes(rows: Sequence[Row], named: Mapping[int, str] | None) -> list[str]:
    """The classes that were compared, in order of their indices."""
    found = {name.removeprefix("dice_") for row in rows for name in row if name.startswith("dice_")}
    if named is not None:
        return [name for _, name in sorted(named.items()) if name in found]
    return sorted(found, key=lambda name: int(name.removeprefix("label-")))


def _mean(values: Tensor) -> Value:
    """Mean over subjects with its interval, None without any."""
    values = values[~values.isnan()]
    if len(values) < 2 or not values.isfinite().all():
        return float(values.mean()) if len(values) else None
    return bootstrap_interval(lambda x: float(x.mean()), values)


def _tables(found: RegistrationEvaluation) -> dict[str, Table]:
    shown = [c for c in MEASURES if any(row.get(c.name) is not None for row in found.rows)]
    notes, rows = [*found.notes], []
    for method in found.methods:
        values = {c.name: found.values(method, c.name) for c in shown}
        n = len(values["psnr"])
        rows.append({"method": method, "n": n, **{name: _mean(v) for name, v in values.items()}})
        fewer = {c.title: int((~values[c.name].isnan()).sum()) for c in shown}
        some = [f"{title} {count}" for title, count in fewer.items() if 0 < count < n]
        if some:
            notes.append(f"{method}: fewer than n = {n} images had {', '.join(some)}.")
    if len({row["n"] for row in rows}) > 1:
        notes.append("Methods that differ in n were measured on different images.")
    rows.append({"method": "Nadeem et al.", **REGISTRATION, PUBLISHED: f"{PAPER}, section 5.1"})
    columns = [Column("method", "Method"), Column("n"), *shown]
    tables = {"registration": Table(rows, columns, "Registration.", [*notes, ELSEWHERE])}
    for c in MEASURES[:2] if found.classes else ():
        names = {f"{c.name}_{k}": k for k in found.classes} | {c.name: "mean"}
        cells = [
            {"class": name, **{m: _mean(found.values(m, key)) for m in found.methods}} for key, name in names.items()
        ]
        heads = [Column(m, format=c.format) for m in found.methods if any(row[m] is not None for row in cells)]
        unit = f" in {c.unit}" if c.unit else ""
        caption = f"{c.title}{unit} of each class, {c.better} is better."
        tables[f"registration_{c.name}"] = Table(cells, [Column("class", "Class"), *heads], caption, NOTES[:1])
    tables["registration_subjects"] = _subject_table(found, shown)
    return tables


def _subject_table(found: RegistrationEvaluation, shown: Sequence[Column]) -> Table:
    rows = {f"{row['method']}/{row['participant_id']}": row for row in found.rows}
    for where, problem in found.problems.items():
        method, _, name = where.rpartition("/")
        rows[where] = {"participant_id": name, "method": method or None, **rows.get(where, {}), "problem": problem}
    columns = [Column("participant_id", "Subject"), Column("method", "Method"), *shown]
    for c in MEASURES[:2] if found.classes else ():
        columns += [Column(f"{c.name}_{k}", f"{c.title} {k}", c.unit, format=c.format) for k in found.classes]
    plain = [Column(c.name, c.title, c.unit, format=c.format) for c in columns]
    last = [Column("problem", "Problem")] if found.problems else []
    return Table(list(rows.values()), plain + last, "Each registered image.", found.notes)
