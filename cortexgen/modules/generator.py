"""What every generator of brains that is trained shares: the run of `predict`."""

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from cortexgen.contracts import Brain, Generator
from cortexgen.generation.cohort import DATASET
from cortexgen.generation.writer import BrainWriter
from cortexgen.modules.base import StageModule
from cortexgen.runner.threads import side_by_side, workers


class GeneratorModule(StageModule):
    """Draws brains of a cohort.

    Attributes:
        num_samples: how many `predict` draws.
    """

    output_name = DATASET
    writer = BrainWriter
    num_samples: int = 12

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.__dict__.pop("generator", None)  # of other options

    @property
    @abstractmethod
    def generator(self) -> Generator:
        """Of these weights and options.

        Raises:
            UserError: if the options can't be met.
        """

    def describe(self) -> dict[str, Any]:
        return self.generator.describe()

    def predict_dataloader(self) -> DataLoader:
        """The number of the first sample of each micro-batch."""
        batches = range(0, self.num_samples, self.generator.batch)
        return DataLoader(batches, batch_size=workers())  # type: ignore[arg-type]

    def predict_step(self, batch: Tensor, batch_idx: int) -> list[Brain]:
        """The brains of some micro-batches, without those that `skip` knows, drawn side by side."""

        def draw(first: int) -> list[Brain]:
            batch = range(first, min(first + self.generator.batch, self.num_samples))
            return list(self.generator.draws([k for k in batch if not self.skip(k)]))

        return [brain for brains in side_by_side(draw, batch.tolist()) for brain in brains]
