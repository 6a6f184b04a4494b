"""A cohort of registrations, in whatever processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortexgen import registry
from cortexgen.atlas.template import Template
from cortexgen.data.cohort import Scan
from cortexgen.data.registered import kept_row, write_registrations
from cortexgen.io import HeaderChoice
from cortexgen.io.bids import Row
from cortexgen.io.header import NO_CHOICE
from cortexgen.registration.files import write_registered
from cortexgen.registration.registrar import Affine, Prepared, Registrar
from cortexgen.runner.cohort import Runner
from cortexgen.runner.precision import Precision

ASIDE = ("template",)  # what not every method needs


@dataclass(frozen=True)
class Moving:
    """An image that is registered instead of the template.

    Attributes:
        path: of the image.
        name: in the names of transforms.
        labels: its label map.
        label_table: names of its classes.
    """

    path: Path
    name: str
    labels: Path | None = None
    label_table: Path | None = None


class RegisterScans:
    """Registers the template, or another image, to a scan, and writes the result; each process has its own registrar.

    Arguments:
        root: an output folder that `open_run` made.
        method: of registration, in the registry.
        options: that it is made with.
        template: as it was given.
        moving: another image instead.
        frames: of the continuous deformation that are written, too.
        nearest, affine, device, precision, choice: as of `Registrar`.
    """

    def __init__(
        self,
        root: Path,
        method: str,
        options: Mapping[str, Any],
        template: Template,
        moving: Moving | None = None,
        frames: int = 0,
        nearest: bool = False,
        affine: Affine = "auto",
        device: str = "auto",
        precision: Precision = "auto",
        choice: HeaderChoice = NO_CHOICE,
    ) -> None:
        self.root, self.method, self.options, self.template = root, method, dict(options), template
        self.moving, self.frames, self.nearest, self.affine = moving, frames, nearest, affine
        self.device, self.precision, self.choice = device, precision, choice
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
            arithmetic = (self.device, self.precision, self.affine, self.choice, self.nearest)
            registrar, moving = Registrar(registration, self.template, *arithmetic), self.moving
            labelled = (moving.labels, moving.name, moving.label_table) if moving else ()
            self._made = registrar, registrar.prepare(moving.path, *labelled) if moving else None
        return self._made

    def __call__(self, scan: Scan) -> Row:
        return kept_row(self.root, scan, lambda: self._registered(scan))

    def _registered(self, scan: Scan) -> Row:
        registrar, moving = self.prepared()
        fixed = registrar.prepare(scan.image, scan.labels)
        moving = moving or registrar.atlas(min(fixed.space.grid.spacing))
        result = registrar.register(moving, fixed)
        return write_registered(self.root, scan, result, registrar.info(moving), frames=self.frames)


def register_cohort(
    scans: Sequence[Scan], work: RegisterScans, jobs: int = 1, scheduler: str | None = None
) -> dict[str, str]:
    """Register scans, those that are done of the same files excepted, and write their table.

    Returns:
        Why scans failed, by name; the others are done.
    """
    with Runner(jobs, scheduler) as runner:
        rows = runner.run(work, {scan.name: scan for scan in scans}, "registering", "image")
    failures = {name: row["reason"] for name, row in rows.items() if row["status"] == "failed"}
    write_registrations(work.root, scans, failures)
    return failures
