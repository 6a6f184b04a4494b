"""A cohort of registrations, in whatever processes."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cortexgen import registry
from cortexgen.atlas.template import Template
from cortexgen.data.cohort import Scan
from cortexgen.data.registered import kept_row, write_registrations
from cortexgen.io.bids import Row
from cortexgen.registration.files import write_registered, write_template
from cortexgen.registration.registrar import Prepared, Registrar
from cortexgen.runner.cohort import HERE, Runner

ASIDE = ("template",)  # what not every method needs
TIMED = ("status", "seconds")  # columns before the whole time


class Moving(NamedTuple):
    """An image that is registered instead of the template; arguments of `Registrar.prepare`."""

    path: Path
    labels: Path | None
    name: str
    label_table: Path | None


class RegisterScans:
    """Registers the template, or another image, to a scan, and writes the result; each process has its own registrar.

    Arguments:
        root: an output folder that `open_run` made.
        method: of registration, in the registry.
        options: that it is made with.
        template: as it was given.
        moving: another image instead.
        frames: of the continuous deformation that are written, too.
        fit: write the labels fitted to the image, too.
        how: further arguments of `Registrar`.
    """

    def __init__(
        self,
        root: Path,
        method: str,
        options: Mapping[str, Any],
        template: Template,
        moving: Moving | None = None,
        frames: int = 0,
        fit: bool = False,
        **how: Any,
    ) -> None:
        self.root, self.method, self.options, self.template = root, method, dict(options), template
        self.moving, self.frames, self.fit, self.how = moving, frames, fit, how
        self._made: tuple[Registrar, Prepared | None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": None}

    def prepared(self) -> tuple[Registrar, Prepared | None]:
        """The registrar, and the moving image where it isn't the template.

        Raises:
            UserError: if a file is missing, or weights and template don't belong together.
        """
        if self._made is None:
            registration = registry.made(
                "registrations", self.method, self.options | {"template": self.template}, ASIDE
            )
            registrar = Registrar(registration, self.template, **self.how)
            self._made = registrar, registrar.prepare(*self.moving) if self.moving else None
        return self._made

    def __call__(self, scan: Scan) -> Row:
        return kept_row(self.root, scan, lambda: self._registered(scan))

    def _registered(self, scan: Scan) -> Row:
        registrar, moving = self.prepared()
        start = time.process_time()
        fixed = registrar.prepare(scan.image, scan.labels)
        moving = moving or registrar.atlas(min(fixed.space.grid.spacing))
        result = registrar.register(moving, fixed)
        if self.moving is None:
            write_template(self.root, moving.space)
        row = write_registered(self.root, scan, result, registrar.info(moving), None, self.frames, self.fit)
        whole = {"processor_seconds": round(time.process_time() - start, 3)}
        return {key: row[key] for key in TIMED} | whole | row


def register_cohort(scans: Sequence[Scan], work: RegisterScans, runner: Runner = HERE) -> dict[str, str]:
    """Register scans, those that are done of the same files excepted, and write their table.

    Returns:
        Why scans failed, by name; the others are done.
    """
    with runner:
        rows = runner.run(work, {scan.name: scan for scan in scans}, "registering", "image")
    failures = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    write_registrations(work.root, scans, failures)
    return failures
