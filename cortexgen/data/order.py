"""The order in which training sees its samples, and their randomness: functions of the seed and the place alone.

Neither processes nor devices, nor how often a training was interrupted, have a part in it. The samples of an epoch
have places 0, 1, 2, ... in one global order; an optimizer step takes as many of them as all devices and accumulated
batches together hold, the next step the next ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

ORDER, SAMPLE, STEP = 1, 2, 3  # streams of random numbers


@dataclass(frozen=True)
class Place:
    """A sample of training.

    Attributes:
        index: of the scan.
        seed: of all that is random about this sample.
        spread: in [0, 1): uniform, and evenly spread over the samples of an optimizer step.
    """

    index: int
    seed: int
    spread: float


class Order(DistributedSampler):
    """One process's share of shuffled epochs: every `world_size`-th place, so that batches side by side are one batch.

    An epoch is filled up from its beginning to a whole number of steps, or of batches where it is less than a step.
    Where nobody sets the epoch, each iteration is the next one.

    Arguments:
        samples: in an epoch.
        seed: of order and randomness.
        batch_size: of all processes together.
        step_size: samples of an optimizer step, of all processes together.
        world_size: number of processes.
        rank: of this one.
        done: says how many batches of the epoch were done before the iteration begins.
    """

    def __init__(
        self,
        samples: int,
        seed: int,
        batch_size: int = 1,
        step_size: int = 1,
        world_size: int = 1,
        rank: int = 0,
        done: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(range(samples), world_size, rank, seed=seed)  # type: ignore[arg-type]
        self.samples, self.batch_size, self.step_size, self.done = samples, batch_size, step_size, done
        unit = step_size if step_size <= samples else batch_size
        self.total_size = -(-samples // unit) * unit

    def __len__(self) -> int:
        return self.total_size // self.num_replicas

    def __iter__(self) -> Iterator[Place]:  # type: ignore[override]
        epoch = self.epoch
        self.epoch += 1
        order = np.random.default_rng((ORDER, self.seed, epoch)).permutation(self.samples)
        for place in range(self.done() * self.batch_size + self.rank, self.total_size, self.num_replicas):
            seed = np.random.SeedSequence((SAMPLE, self.seed, epoch, place)).generate_state(1, np.uint64)[0] >> 2
            yield Place(int(order[place % self.samples]), int(seed), self._spread(epoch, place))

    def _spread(self, epoch: int, place: int) -> float:
        """One uniform offset for a step: less variance than independent numbers (Kingma et al., 2021)."""
        step, within = divmod(place, self.step_size)
        size = min(self.step_size, self.total_size - step * self.step_size)
        offset = np.random.default_rng((STEP, self.seed, epoch, step)).random()
        return float((offset + within / size) % 1)


class OrderedLoader(DataLoader):
    """Asks its sampler for nothing before the first batch is wanted, when the epoch and its first batch are known."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class TrainingSamples(Dataset):
    """A data set whose keys are places, or indices alone: then torch's own generator draws.

    A place's sample names the seed and the spread that the module goes on with.
    """

    scans: Sequence[Any]

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, key: Place | int) -> dict[str, Any]:
        if not isinstance(key, Place):
            return self.sample(key, None)
        generator = torch.Generator().manual_seed(key.seed)
        seed = int(torch.randint(2**62, (), generator=generator))
        return self.sample(key.index, generator) | {"seed": seed, "spread": torch.tensor(key.spread)}

    def sample(self, index: int, generator: torch.Generator | None) -> dict[str, Any]:
        """The sample of one scan, what is random about it drawn with `generator`."""
        raise NotImplementedError
