"""Features of a fixed random network: a distance between cohorts where no trained weights are at hand."""

import hashlib
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, conv3d, pad

from cortexgen.errors import UserError
from cortexgen.spatial.precision import full_precision

WIDTHS = (1, 16, 32, 64, 128)
SPAN = 1 << 20
SLAB = 4  # slices of a volume at a time, an even number


class RandomFeatures(nn.Module):
    """The network "random-conv-v1": four random 3×3×3 convolutions, the grid halved between them, 480 features.

    The features are mean and standard deviation over space of every channel of every scale. Weights and biases are
    uniform, weights with variance 2 / fan-in, those of the first convolution less their filter's mean: it sees edges
    and texture, not brightness. They are drawn as whole numbers, the same on every machine. Nothing in it was trained:
    distances compare cohorts on one grid with each other, and are no FID.

    Attributes:
        name: "random-conv-v1-seed0" for seed 0.
        sha256: of weights and biases.
        distance: what a Fréchet distance of these features is called.
        protocols: that they are measured in.
    """

    distance = "random-feature distance"
    protocols = ("standard",)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.name = f"random-conv-v1-seed{seed}"
        stream = np.random.RandomState(seed)
        digest = hashlib.sha256()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in pairwise(WIDTHS):
            reach = (6 / (27 * before)) ** 0.5  # the variance of a uniform value in ±reach is reach² / 3
            weight = stream.randint(-SPAN, SPAN + 1, (after, before, 27), dtype=np.int64)
            if before == 1:  # no answer to a constant, in exact arithmetic
                weight = 27 * weight - weight.sum(axis=2, keepdims=True)
                reach /= 27
            bias = stream.randint(-SPAN, SPAN + 1, after, dtype=np.int64)
            for values, drawn in (
                (self.weights, (weight * (reach / SPAN)).reshape(after, before, 3, 3, 3)),
                (self.biases, bias * (0.1 / SPAN)),
            ):
                exact = drawn.astype("<f4")
                digest.update(exact.tobytes())
                values.append(nn.Parameter(torch.from_numpy(exact), requires_grad=False))
        self.sha256 = digest.hexdigest()

    @property
    def label(self) -> str:
        """Name and hash in one line, for tables."""
        return f"{self.name} (sha256 {self.sha256}, untrained)"

    @full_precision
    def forward(self, volumes: Tensor) -> Tensor:
        """Features `[B, 480]` of volumes `[B, 1, D, H, W]` in [0, 1], float32.

        Raises:
            UserError: if a side is shorter than 16 voxels.
        """
        if min(volumes.shape[2:]) < 16:
            raise UserError(f"random features need 16 voxels a side, got {tuple(volumes.shape[2:])}")
        x, features = volumes.float(), []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            mean, deviation, x = _answer(x, weight, bias)
            features += [mean, deviation]
        return torch.cat(features, dim=1)


def _answer(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation over space of each channel of a convolution, `[B, C]`, and its answer halved.

    Of a volume itself it is done slab by slab, since all of it would not stay in the processor's cache; moments are
    joined as Chan, Golub and LeVeque have it (1983).
    """
    padded, slices = pad(x, (1,) * 6), x.shape[2]
    slab = SLAB if x.shape[1] == 1 else slices
    mean = square = x.new_zeros(1, 1)
    halved, count = [], 0
    for start in range(0, slices, slab):
        y = conv3d(padded[:, :, start : start + slab + 2], weight, bias).relu_()
        if y.shape[2] > 1:
            halved.append(avg_pool3d(y, 2))
        voxels, there = y[0, 0].numel(), y.mean(dim=(2, 3, 4), keepdim=True)
        step = there.flatten(1) - mean
        square = (y - there).square_().sum(dim=(2, 3, 4)) + square
        square += step**2 * (count * voxels / (count + voxels))
        mean = mean + step * (voxels / (count + voxels))
        count += voxels
    return mean, (square / (count - 1)).sqrt(), torch.cat(halved, dim=2)
