"""Random numbers of a training batch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class SampleNoise:
    """Draws for each sample of a batch by the sample's own seed, whatever else is in the batch.

    Arguments:
        batch: with integers "seed", `[B]`; torch's own generator seeds the samples of a batch without.
        like: `[B, ...]`, whose device and shape the numbers have.
        stream: another one, other numbers.
    """

    def __init__(self, batch: Mapping[str, Any], like: Tensor, stream: int = 0) -> None:
        seeds = batch["seed"] if "seed" in batch else torch.randint(2**62, (len(like),))
        self._generators = [torch.Generator(like.device).manual_seed(seed + stream) for seed in seeds.tolist()]
        self._shape, self._device = like.shape[1:], like.device

    def _each(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        return torch.stack([draw(shape, generator=g, device=self._device) for g in self._generators])

    def normal(self) -> Tensor:
        """Standard normal float32 numbers of the batch's shape."""
        return self._each(torch.randn, *self._shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform float32 numbers in [0, 1), `[B, *shape]`."""
        return self._each(torch.rand, *shape)
