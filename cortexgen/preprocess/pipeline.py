"""The steps in their order, on one scan."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io import Grid, HeaderChoice, write_json
from cortexgen.io.bids import Row, source_hash
from cortexgen.io.header import NO_CHOICE
from cortexgen.preprocess.labels import carried
from cortexgen.preprocess.outputs import Outputs
from cortexgen.preprocess.reading import read_scan
from cortexgen.preprocess.state import Subject
from cortexgen.preprocess.steps import Step


class Pipeline:
    """Steps in an order that works.

    Arguments:
        steps: in their order.
        template: where they lead.
        skip: names of steps to leave out.
        choice: what decides where scans' headers leave a choice.

    Raises:
        UserError: if there is no step, no step has a name to skip, or one comes twice, too early, without another that
            it needs, without its tool, or can't reach this template.
    """

    def __init__(
        self, steps: Sequence[Step], template: Template, skip: Sequence[str] = (), choice: HeaderChoice = NO_CHOICE
    ) -> None:
        names = [step.name for step in steps]
        unknown = sorted(set(skip) - set(names))
        if unknown:
            raise UserError(f"skip: no step is called {', '.join(unknown)}; there are {', '.join(names)}")
        self.steps = [step for step in steps if step.name not in skip]
        self.template, self.choice = template, choice
        if not self.steps:
            raise UserError("steps: none is left to run")
        names = [step.name for step in self.steps]
        for k, step in enumerate(self.steps):
            if step.name in names[:k]:
                raise UserError(f"steps: {step.name} comes twice")
            late = [s.name for s in self.steps[k + 1 :] if s.name in step.after or step.name in s.before]
            if late:
                raise UserError(f"steps: {step.name} comes before {' and '.join(late)}, expected it later")
            missing = [name for name in step.needs if name not in names]
            if missing:
                raise UserError(f"steps: {step.name} needs {' and '.join(missing)} too; add it, or leave both out")
            step.check(template)

    def describe(self) -> list[dict[str, Any]]:
        """Name, version, options and tools of each step, in plain types."""
        return json.loads(json.dumps([step.describe() for step in self.steps]))

    def run(self, image: Tensor, grid: Grid, source: str) -> Subject:
        """Preprocess one scan in memory.

        Arguments:
            image: `[1, D, H, W]` float32.
            source: what to name in errors.

        Raises:
            UserError: if the scan doesn't allow a step, or a step's tool fails.
        """
        subject = Subject(image, grid, self.template, source)
        for step in self.steps:
            try:
                step(subject)
            except RuntimeError as error:  # what ITK raises, and torch without memory
                last = str(error).strip().splitlines()[-1]
                raise UserError(f"{source}: the step {step.name} failed: {last}") from error
        if subject.mask is None:
            subject.keep(subject.inside)
        mask, where = subject.native or (subject.mask, subject.grid)
        assert mask is not None
        subject.measures["brain_volume_ml"] = float(mask.sum()) * where.voxel_volume / 1000
        return subject


def preprocess_scan(scan: Scan, out: Path, pipeline: Pipeline) -> Row:
    """Preprocess one scan and write what comes of it, its labels among it, as BIDS derivatives under `out`.

    A scan that was done before by the same steps is not done again. One that fails leaves nothing.

    Returns:
        The scan's row: participant_id, status ("ok" or "flagged"), flags, measures, seconds.

    Raises:
        UserError: if the scan can't be preprocessed, or nothing can be written to `out`.
    """
    start = time.perf_counter()
    outputs = Outputs(out, scan)
    try:
        made = _made(scan, pipeline)
        if (done := outputs.done(made)) is not None:
            return done
        outputs.remove()
        image, grid = read_scan(scan.image, pipeline.choice)
        subject = pipeline.run(image, grid, str(scan.image))
        labels = carried(scan.labels, subject, pipeline.choice) if scan.labels else None
        outputs.write(subject, pipeline.describe(), (image, grid), labels)
        row: Row = {"participant_id": scan.name, "status": "flagged" if subject.flags else "ok"}
        row |= {"flags": "; ".join(subject.flags)} if subject.flags else {}
        row |= subject.measures | {"seconds": round(time.perf_counter() - start, 1)}
        write_json(outputs.metrics, {"Row": row, **made})
    except BaseException as error:
        outputs.remove()
        if isinstance(error, OSError):
            raise UserError(f"{out}: cannot write there ({error.strerror or error})") from error
        raise
    return row


def finished(scan: Scan, out: Path, pipeline: Pipeline) -> Row | None:
    """The row of a scan that was done before by the same steps, or None."""
    try:
        return Outputs(out, scan).done(_made(scan, pipeline))
    except UserError:
        return None


def _made(scan: Scan, pipeline: Pipeline) -> dict[str, Any]:
    """What results depend on; a UserError if the scan can't be read."""
    made: dict[str, Any] = {"SourceHash": source_hash(scan.image), "TemplateHash": pipeline.template.hash}
    made |= {"LabelsHash": source_hash(scan.labels) if scan.labels else None}
    return made | {"Steps": pipeline.describe(), "Header": pipeline.choice.describe() or None}
