"""The pairs of template and subject of a cohort on one grid, as maps between their spaces."""

from torch import Tensor

from cortexgen.contracts import Frame, Space
from cortexgen.data.cohort import Scan
from cortexgen.data.loading import load_labels, load_scan
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.io import Grid
from cortexgen.registration.propagation import Propagation
from cortexgen.registration.whole import continued


class CohortPairs:
    """Where registrations of a data module's scans lie: on the images' own grid, or on the slab that was worked on.

    Arguments:
        data: set up.
        frame: of the registration; its grid is that of the data.

    Attributes:
        whole: where only a slab is worked on, the maps between the whole images, if these are asked for.
        info: what the sidecars of velocities say about where they came from.
    """

    def __init__(self, data: RegistrationDataModule, frame: Frame) -> None:
        self.data, self.steps = data, frame.steps
        self.slab = isinstance(data.crop, list)
        original = data.original.to(data.native)
        template = data.template if self.slab else original
        self.template = self._space(template.name, template.image, template.labels, template.grid)
        self.velocity_grid = frame.velocity_grid
        self.whole: Propagation | None = None
        if self.slab and data.whole:
            spaces = [self._space(name, original.image, None, data.native) for name in (original.name, "T1w")]
            self.whole = Propagation(spaces[0], spaces[1], continued(self.velocity_grid, data.native), frame.steps)
        self.info = {
            "Template": template.name,
            "TemplateHash": template.hash,
            "ImageGrid": template.grid.to_dict(),
            "Preprocessing": frame.preprocessing,
        }

    def _space(self, name: str, image: Tensor, labels: Tensor | None, grid: Grid) -> Space:
        template = self.data.template
        return Space(name, image, labels, grid, grid, classes=tuple(template.classes), numbers=template.numbers)

    def maps(self, scan: Scan) -> Propagation:
        """Between the template and a scan.

        Raises:
            UserError: if the scan can't be read.
        """
        data, grid = self.data, self.template.grid
        image = data.image_of(scan) if self.slab else load_scan(scan, grid, grid, data.choice)
        labels = load_labels(scan, grid, data.template, data.choice)
        return Propagation(self.template, self._space("T1w", image, labels, grid), self.velocity_grid, self.steps)
