"""The tables and the record of an evaluation."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cortexgen.errors import UserError
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.table import Table
from cortexgen.evaluation.tables import build
from cortexgen.io import write_json
from cortexgen.io.atomic import remove_leftovers
from cortexgen.io.output import claim, contents, examine, settings
from cortexgen.io.paths import visible, within

RECORD, REPORT, TABLES = "evaluation.json", "evaluation.html", "tables"
REGISTRATIONS = "registration", TABLES, REPORT


def open_evaluation(out: Path, facts: Mapping[str, Any], sets: Iterable[str], inputs: Iterable[Path]) -> None:
    """Make a folder for an evaluation, or go on in one of the same real brains.

    Arguments:
        facts: what must not differ.
        sets: names of those that are evaluated, of which tables and report are made; none of before may be missing.
        inputs: files and folders that are read.

    Raises:
        UserError: as `cortexgen.io.output.claim`.
    """
    if claim(out, lambda root: _same(root, facts, set(sets)), inputs):
        write_json(Path(out, RECORD), {"version": version("cortexgen"), **facts})


def examine_evaluation(out: Path, facts: Mapping[str, Any], sets: Iterable[str], inputs: Iterable[Path]) -> None:
    """See that `open_evaluation` could make or take a folder, and touch nothing."""
    examine(out, lambda root: _same(root, facts, set(sets)), inputs)


def _same(out: Path, facts: Mapping[str, Any], sets: set[str]) -> bool:
    found = settings(Path(out, RECORD))
    if found is None:  # earlier versions kept none of registrations
        return "fixed" in facts and (out / "registration").is_dir() and set(contents(out)) <= {*REGISTRATIONS}
    for name, value in facts.items():
        if found.get(name) != value:
            raise UserError(f"{out}: holds an evaluation with {name} {found.get(name)}, this one has {value}")
    lost = sorted({*found.get("brains", ())} - {"real"} - sets)
    if lost:
        names = ", ".join(lost)
        raise UserError(f"{out}: its tables hold {names}, which they would lose; give {names} too, or another folder")
    return True


def note_sets(out: Path, facts: Mapping[str, Any], sets: Iterable[str]) -> None:
    """Note what the tables of an evaluation of registrations are of, and tidy up after killed runs."""
    write_json(Path(out, RECORD), {"version": version("cortexgen"), **facts, "brains": sorted(sets)})
    remove_leftovers(out)


def write_evaluation(
    evaluation: Evaluation, out: Path, failures: Mapping[str, str], seconds: Mapping[str, float]
) -> dict[str, Table]:
    """Write tables and record of what was measured so far; returns the tables by file name.

    Arguments:
        failures: sets that could not be evaluated, and why.
        seconds: a sample, by set.
    """
    tables = build(evaluation, seconds)
    for name, table in tables.items():
        table.write(within(out, TABLES, name))
    for path in visible(Path(out, TABLES)):
        if path.stem not in tables:  # of an earlier call, which measured more
            within(out, TABLES, path.name).unlink()
    record = settings(Path(out, RECORD)) or {}
    options = evaluation.options
    record |= {
        "options": {**asdict(options), "held_out": sorted(options.held_out)},
        "labels": evaluation.labeller.description if evaluation.labeller else None,
        "features": [network.label for network in evaluation.networks],
        "brains": {r.name: len(r.store) for r in (evaluation.real, *evaluation.sets)},
        "problems": evaluation.problems,
        "failures": dict(failures),
        "notes": evaluation.notes,
    }
    write_json(Path(out, RECORD), record)
    return tables
