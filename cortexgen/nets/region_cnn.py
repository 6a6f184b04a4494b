"""A small 3D network that sees a brain region by region."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d

MOMENTUM = 0.02  # of the running means that features are standardized by
LEAST = 1e-8  # of their variances


def _convolution(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """Without a norm, which would take a picture's brightness or contrast away or mix a batch's brains."""
    conv = nn.Conv3d(before, after, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    nn.init.zeros_(cast(Tensor, conv.bias))
    return nn.Sequential(conv, nn.ReLU())


class RegionCNN(nn.Module):
    """Convolutions at a half and a quarter of the image's resolution, averaged within each region of a template.

    Each scale's channels are mixed to `kept` before their means are taken, so that a brain has
    `regions * sum(kept)` features, standardized by the running mean and deviation of training brains, from which linear
    answers are given. (Means differ little from brain to brain: as they are, answers would be learned slowly.)

    Arguments:
        regions: of the template.
        answers: numbers that are answered.
        widths: channels of the two convolutions at half, then of the others at a quarter of the resolution.
        kept: channels of each scale in the features.
        dropout: share of the features that answers do without in training.
    """

    def __init__(
        self,
        regions: int,
        answers: int,
        widths: Sequence[int] = (12, 20, 40, 48, 64),
        kept: tuple[int, int] = (8, 16),
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        first, second, *others = widths
        self.fine = nn.Sequential(_convolution(1, first, 2), _convolution(first, second))
        steps = enumerate(pairwise([second, *others]))
        self.coarse = nn.Sequential(*(_convolution(a, b, 1 if k else 2) for k, (a, b) in steps))
        self.mix = nn.ModuleList(nn.Conv3d(n, k, 1) for n, k in zip((second, others[-1]), kept, strict=True))
        self.dropout = nn.Dropout(dropout)
        size = regions * sum(kept)
        self.answer = nn.Linear(size, answers)
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("batches", torch.zeros(()))

    @staticmethod
    def weights(regions: Tensor) -> tuple[Tensor, Tensor]:
        """What voxels of the two scales count in the mean of each region, `[R, V]`.

        Arguments:
            regions: how much of each voxel is of each region, `[R, D, H, W]`.
        """
        depth, height, width = regions.shape[1:]
        shapes = ((-(-depth // n), -(-height // n), -(-width // n)) for n in (2, 4))
        pooled = [adaptive_avg_pool3d(regions, shape).flatten(1) for shape in shapes]
        fine, coarse = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6) for shares in pooled)
        return fine, coarse

    def means(self, volumes: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """Means of the channels in each region, `[B, F]`, region by region.

        Arguments:
            volumes: `[B, 1, D, H, W]` in [0, 1].
            weights: of the regions.
        """
        fine = self.fine(volumes)
        scales = [mix(x).relu() for mix, x in zip(self.mix, (fine, self.coarse(fine)), strict=True)]
        pairs = zip(scales, weights, strict=True)
        means = [torch.einsum("bkv,rv->brk", x.flatten(2).float(), shares) for x, shares in pairs]
        return torch.cat(means, dim=2).flatten(1)

    def standardized(self, means: Tensor) -> Tensor:
        """Means less the training brains', over their deviations: the features."""
        return (means - self.mean) / (self.variance + LEAST).sqrt()

    @torch.no_grad()
    def _follow(self, means: Tensor) -> None:
        """Move the running mean and variance to a batch's."""
        self.batches += 1
        share = max(MOMENTUM, 1 / float(self.batches))  # all of the first batch's
        off = means - self.mean
        self.mean += share * off.mean(dim=0)
        centred = means - self.mean
        self.variance += share * (centred.square().mean(dim=0) - self.variance)

    def forward(self, volumes: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """Answers `[B, A]`."""
        means = self.means(volumes, weights)
        if self.training:
            self._follow(means)
        return self.answer(self.dropout(self.standardized(means)))
