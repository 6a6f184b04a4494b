"""Registrations without weights, around the template's brain."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from cortexgen.atlas.box import brain_box
from cortexgen.atlas.template import Template
from cortexgen.contracts import Frame, Registration
from cortexgen.io import write_volume


class BoxRegistration(Registration):
    """Base of registrations in the box of a template's brain; their fields are displacements.

    Arguments:
        template: around whose brain they work.
        spacing: of the box's grid in millimetres.
    """

    def __init__(self, template: Template, spacing: float = 2.0) -> None:
        self.grid = brain_box(template.to(template.grid.at_spacing(spacing)))
        self.spacing = spacing

    @property
    def frame(self) -> Frame:
        """The box."""
        return Frame(self.grid, self.grid)

    @contextmanager
    def files(self, **images: Tensor) -> Iterator[dict[str, Path]]:
        """Images `[1, 1, D, H, W]` on the box's grid as NIfTI files, for programs that read such; gone afterwards."""
        with TemporaryDirectory() as folder:
            paths = {name: Path(folder, f"{name}.nii.gz") for name in images}
            for name, image in images.items():
                write_volume(paths[name], image[0].float().cpu(), self.grid)
            yield paths
