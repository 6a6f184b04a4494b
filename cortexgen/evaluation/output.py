"""The files of an evaluation."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cortexgen.errors import UserError
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.tables import build
from cortexgen.io import write_json
from cortexgen.io.bids import check_output
from cortexgen.report.evaluation import write_report

RECORD, REPORT, TABLES = "evaluation.json", "evaluation.html", "tables"


def open_evaluation(out: Path, facts: Mapping[str, Any]) -> None:
    """Make a folder for an evaluation, or go on in one of the same real brains.

    Raises:
        UserError: if it can't be written to, or holds something else.
    """
    record = Path(out, RECORD)
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        for name, value in facts.items():
            if found.get(name) != value:
                raise UserError(f"{out}: holds an evaluation with {name} {found.get(name)}, this one has {value}")
        return
    if Path(out).is_dir() and any(Path(out).iterdir()):
        raise UserError(f"{out}: holds other files; choose a new or empty folder")
    check_output(out)
    write_json(record, {"version": version("cortexgen"), **facts})


def write_evaluation(
    evaluation: Evaluation, out: Path, failures: Mapping[str, str], seconds: Mapping[str, float], report: bool
) -> None:
    """Write tables and record of what was measured so far, and the report if it is asked for.

    Arguments:
        failures: sets that could not be evaluated, and why.
        seconds: a sample, by set.
    """
    tables = build(evaluation, seconds)
    for name, table in tables.items():
        Path(out, TABLES).mkdir(exist_ok=True)
        table.write(Path(out, TABLES, name))
    record = json.loads(Path(out, RECORD).read_text(encoding="utf-8"))
    options = evaluation.options
    record |= {
        "options": {**vars(options), "held_out": sorted(options.held_out)},
        "labels": evaluation.labeller.description if evaluation.labeller else None,
        "features": [network.label for network in evaluation.networks],
        "brains": {r.name: len(r.store) for r in (evaluation.real, *evaluation.sets)},
        "problems": evaluation.problems,
        "failures": dict(failures),
        "notes": evaluation.notes,
    }
    write_json(Path(out, RECORD), record)
    if report:
        write_report(Path(out, REPORT), evaluation, tables, failures)
