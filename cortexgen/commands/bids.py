"""`cortexgen bids`: preprocess, register and evaluate with the arguments that BIDS Apps take."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cortexgen.commands.evaluate import evaluate
from cortexgen.commands.preprocess import preprocess
from cortexgen.commands.register import register
from cortexgen.errors import UserError
from cortexgen.io.output import read_record
from cortexgen.io.paths import resolved, visible

PREPARED, REGISTERED, EVALUATED = "preprocessed", "registered", "evaluated"
VALIDATOR = "import sys; from bids_validator_deno import cli; sys.exit(cli())"


def bids(
    bids_dir: Path,
    output_dir: Path,
    analysis_level: Literal["participant", "group"],
    participant_label: list[str] | None = None,
    session_label: list[str] | None = None,
    skip_bids_validation: bool = False,
    spacing: float | None = None,
    skip: str | None = None,
    method: str = "network",
    refine: int | None = None,
    n_cpus: int = 1,
) -> None:
    """Preprocess and register a BIDS data set, in the order of arguments of a BIDS App.

    participant: `preprocess` into preprocessed/ of the output folder (unless the data set is a derivative, of
    skull-stripped T1w as `preprocess` writes them), then `register` into registered/. group: tables and pages over all
    that is there, and evaluated/, how well the template fits each of them. Both go on where they were stopped.

    Args:
        bids_dir: The BIDS data set.
        output_dir: Folder to write to.
        analysis_level: participant, or afterwards group.
        participant_label: Subjects to take, 01 02, with or without sub-; all unless given.
        session_label: Sessions to take, likewise.
        skip_bids_validation: Don't run the BIDS validator first (it comes with `cortexgen[bids]`).
        spacing: Voxel size of preprocessing in millimetres (1 unless given).
        skip: Steps of preprocessing to leave out, comma-separated.
        method: Of registration, as of `cortexgen register`.
        refine: Gradient steps on each pair, likewise.
        n_cpus: Scans at a time.
    """
    if n_cpus < 1:
        raise UserError(f"--n_cpus: expected 1 or more, got {n_cpus}")
    if resolved(bids_dir) == resolved(output_dir):
        raise UserError(f"{output_dir}: is what is read; choose a new folder to write to, such as derivatives/ in it")
    if not skip_bids_validation:
        validate(bids_dir)
    raw = read_record(bids_dir / "dataset_description.json").get("DatasetType", "raw") != "derivative"
    prepared, registered = output_dir / PREPARED if raw else bids_dir, output_dir / REGISTERED
    group = analysis_level == "group"
    wanted, sessions = _labels("sub-", participant_label), _labels("ses-", session_label)
    failed: UserError | None = None
    if raw:
        chosen = _there(prepared, wanted) if group else ",".join(wanted) or None
        visits = ",".join(sessions) or None
        try:
            preprocess(bids_dir, prepared, visits=visits, participants=chosen, skip=skip, spacing=spacing, jobs=n_cpus)
        except UserError as error:
            failed = error  # of some scans; the others are registered
    if raw or group:
        try:
            chosen = _there(registered if group else prepared, wanted)
        except UserError as error:
            raise failed or error from None
    else:
        chosen = ",".join(wanted) or None
    only = ",".join(sessions) or None
    register(prepared, registered, participants=chosen, sessions=only, method=method, refine=refine, jobs=n_cpus)
    if group:
        evaluate(prepared, [str(registered)], output_dir / EVALUATED, registration=True, jobs=n_cpus)
    if failed:
        raise failed


def validate(root: Path) -> None:
    """Run the BIDS validator, if it is installed.

    Raises:
        UserError: if it finds an error, or the folder is none.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    if find_spec("bids_validator_deno") is None:
        print("not validated: the BIDS validator isn't installed (pip install 'cortexgen[bids]')", file=sys.stderr)
        return
    command = [sys.executable, "-c", VALIDATOR, str(root), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError):
        raise UserError(f"{root}: the BIDS validator failed ({done.stderr.strip()[-200:]})") from None
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    if errors:
        what = ", ".join(str(errors[0][key]) for key in ("code", "subCode", "location") if errors[0].get(key))
        raise UserError(
            f"{root}: not valid BIDS, {len(errors)} error(s), such as {what}; --skip-bids-validation goes on"
        )


def _labels(prefix: str, given: list[str] | None) -> list[str]:
    return [label.removeprefix(prefix) for label in given or []]


def _there(root: Path, wanted: list[str]) -> str:
    """The subjects of a folder among those that are wanted, comma-separated.

    Raises:
        UserError: if there is none.
    """
    found = [path.name.removeprefix("sub-") for path in visible(root, "sub-*")]
    chosen = [name for name in found if not wanted or name in wanted]
    if not chosen:
        raise UserError(f"{root}: no participant {' or '.join(wanted) or 'at all'}; run the level participant first")
    return ",".join(chosen)
