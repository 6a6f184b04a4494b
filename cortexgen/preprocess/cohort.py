"""A cohort through the pipeline: its folder, its tables, and what stands out in it."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cortexgen.data.cohort import Scan, read_cohort, write_participants
from cortexgen.errors import UserError
from cortexgen.io.bids import Row, describe_dataset, generated_by, read_tsv, write_tsv
from cortexgen.io.output import claim, examine, records, same_dataset
from cortexgen.preprocess.pipeline import Pipeline, finished, preprocess_scan
from cortexgen.runner.cohort import Runner, failed

TABLE = "preprocess.tsv"
TABLES = {TABLE: ["participant_id", "status"], "participants.tsv": ["participant_id"]}


def check_same_steps(out: Path, pipeline: Pipeline, inputs: Iterable[Path] = ()) -> None:
    """See that a folder is new or holds what this pipeline made, and touch nothing.

    Arguments:
        inputs: files and folders that are read.

    Raises:
        UserError: if not, naming the first difference.
    """
    examine(out, partial(_same_steps, pipeline=pipeline), inputs, TABLES)


def open_cohort(out: Path, pipeline: Pipeline, inputs: Iterable[Path] = ()) -> None:
    """Make the folder of a cohort, or go on in one of the same steps.

    Raises:
        UserError: as `check_same_steps`, and if it can't be written to.
    """
    if claim(out, partial(_same_steps, pipeline=pipeline), inputs, TABLES):
        describe_dataset(out, "preprocessed T1w", {"Command": "cortexgen preprocess", **_about(pipeline)})


def _same_steps(out: Path, pipeline: Pipeline) -> bool:
    found, now = generated_by(out) or {}, pipeline.describe()
    before = found.get("Steps")
    if isinstance(before, list) and before != now:
        numbers = f"{len(before)} steps", f"{len(now)} steps"
        a, b = next(((a, b) for a, b in zip(before, now, strict=False) if a != b), numbers)
        raise UserError(
            f"{out}: holds a cohort that was preprocessed otherwise: {a} there, {b} now; give another folder"
        )
    return same_dataset(out, _about(pipeline))


def _about(pipeline: Pipeline) -> dict[str, Any]:
    return {"Template": pipeline.template.name, "TemplateHash": pipeline.template.hash, "Steps": pipeline.describe()}


def preprocess_cohort(
    scans: Sequence[Scan],
    out: Path,
    pipeline: Pipeline,
    jobs: int = 1,
    scheduler: str | None = None,
    problems: Mapping[str, str] | None = None,
    threads: int = 1,
) -> list[Row]:
    """Preprocess scans into BIDS derivatives; those that are done already are left as they are.

    Arguments:
        out: the derivatives' folder; on a cluster one that every worker sees under this path.
        jobs: processes on this machine.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers take the scans instead.
        problems: scans that can't be used, by name, to be listed with their reason.
        threads: of each process.

    Returns:
        A row a scan, in the order of `scans` with the problems after them, as in preprocess.tsv; "status" is "ok",
        "flagged" or "failed".

    Raises:
        UserError: if the folder can't be written to or holds another pipeline's results, or no scheduler answers.
    """
    runner = Runner(jobs, scheduler, isolated=True, threads=threads)
    out = Path(out).resolve()
    open_cohort(out, pipeline, {scan.image.parent for scan in scans})
    done = {scan.name: row for scan in scans if (row := finished(scan, out, pipeline))}
    waiting = {scan.name: scan for scan in scans if scan.name not in done}
    done |= runner.run(partial(preprocess_scan, out=out, pipeline=pipeline), waiting, "preprocessing")
    rows = [done[scan.name] for scan in scans] + [failed(name, why) for name, why in (problems or {}).items()]
    everyone = [*_earlier(out, {row["participant_id"] for row in rows}), *rows]
    judge(everyone)
    write_tsv(out / TABLE, everyone)
    _write_participants(out, scans, everyone)
    return rows


def _earlier(out: Path, now: set[str]) -> list[Row]:
    """Rows of the scans that the folder holds besides those of this run, and of those that failed in other runs."""
    table = out / TABLE
    before = {row["participant_id"]: row for row in (read_tsv(table) if table.is_file() else [])}
    done = {name: found["Row"] for name, found in records(out, "preproc").items() if "Row" in found}
    there = {n: r for n, r in before.items() if r["status"] == "failed" or out.joinpath(*str(n).split("_")).is_dir()}
    return [row for name, row in (there | done).items() if name not in now]


def judge(rows: Sequence[Row]) -> None:
    """Flag what stands out among the other scans of the cohort, in place: "status", and "outlier" with the numbers."""
    from cortexgen.preprocess.outliers import flag_outliers

    outliers = flag_outliers([row for row in rows if row["status"] != "failed"])
    for row in rows:
        row["outlier"] = "; ".join(outliers.get(str(row["participant_id"]), [])) or None
        if row["status"] != "failed":
            row["status"] = "flagged" if row.get("flags") or row["outlier"] else "ok"


def _write_participants(out: Path, scans: Sequence[Scan], rows: Sequence[Row]) -> None:
    """Those of this run and of the runs before it, with the brain volume that was measured."""
    volumes = {row["participant_id"]: row.get("brain_volume_ml") for row in rows}
    known = {scan.name: scan.covariates for scan in scans}
    written = read_cohort(out, warn=False) if any(row["status"] != "failed" for row in rows) else []
    complete = []
    for scan in written:
        row = {**scan.covariates, **known.get(scan.name, {})}
        if row.get("brain_volume_ml") is None and volumes.get(scan.name) is not None:
            row["brain_volume_ml"] = volumes[scan.name]
        complete.append(Scan(scan.name, scan.subject, scan.image, None, row))
    if complete:
        write_participants(out, complete)
