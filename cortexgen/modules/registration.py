"""What every registration network shares: where it works, and what `predict` returns."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from cortexgen.contracts import Failed, Frame, Registered, Registration, Synthesis
from cortexgen.errors import reason
from cortexgen.io import Grid
from cortexgen.modules.base import StageModule
from cortexgen.registration.cohort_pairs import CohortPairs
from cortexgen.registration.registrar import registered
from cortexgen.registration.writer import RegistrationWriter


class RegistrationModule(StageModule, Registration):
    """Registers the template to the scans of a cohort.

    Attributes:
        frames: of the continuous deformation that are written, too.
        nearest_labels: take warped labels from the nearest voxel instead of the largest interpolated indicator.
        run_options: what else a registration depends on, names of attributes.
    """

    output_name = "template to subject registration"
    writer = RegistrationWriter
    frames: int = 0
    nearest_labels: bool = False
    run_options: Sequence[str] = ()

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.__dict__.pop("pairs", None)  # of other data, or options

    @property
    def field_downsample(self) -> int:
        """Its fields live on every 1st, 2nd or 4th voxel."""
        return self.h.field_downsample

    @property
    def frame(self) -> Frame:
        """Where it was trained, by its contract."""
        grid, template = Grid.from_dict(self.contract["grid"]), self.contract["template"]
        coarse, preprocessing = grid.coarse(self.field_downsample), self.contract.get("preprocessing", [])
        return Frame(grid, coarse, self.h.integration_steps, template["hash"], preprocessing)

    @cached_property
    def pairs(self) -> CohortPairs:
        """The maps between the template and the scans of the running trainer's data."""
        return CohortPairs(self.data, self.frame)

    def describe(self) -> dict[str, Any]:
        """The weights, the run-time options by name, and whether the whole image is written of a slab."""
        options = {name: value for name in self.run_options if (value := getattr(self, name)) is not None}
        options |= {"whole": True} if self.data_is_set_up and self.pairs.whole else {}
        return {"Weights": self.weights_hash(), "Template": self.contract["template"]["hash"], "Parameters": options}

    def synthesis_of(self, moving: Tensor, fixed: Tensor) -> Synthesis | None:
        """What else is made of a pair `[1, 1, D, H, W]`, for a picture; nothing unless a network knows something."""

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Registered | Failed | None:
        """The registration of a scan, or why there is none; nothing for one that `skip` knows."""
        scan = self.data.scans[batch["index"]]
        try:
            if self.skip(scan):
                return None
            if "error" in batch:
                return Failed(batch["error"])
            images = self.data.template.image[None].to(batch["fixed"].device), batch["fixed"]
            result = registered(self, images, self.pairs.maps(scan), self.nearest_labels)
            return replace(result, synthesis=self.synthesis_of(*images))
        except Exception as error:
            return Failed(reason(error))
