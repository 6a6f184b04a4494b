"""Features of a fixed random network: a distance between cohorts where no trained weights are at hand."""

import hashlib
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, conv3d

from cortexgen.errors import UserError
from cortexgen.spatial.precision import full_precision

WIDTHS = (1, 16, 32, 64, 128)
SPAN = 1 << 20


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
        for scale, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = conv3d(avg_pool3d(x, 2) if scale else x, weight, bias, padding=1).relu_()
            mean, voxels = x.mean(dim=(2, 3, 4), keepdim=True), x[0, 0].numel()
            square = (x - mean).square_().mean(dim=(2, 3, 4))  # x.std() takes three times as long
            features += [mean.flatten(1), (square * voxels / (voxels - 1)).sqrt()]
        return torch.cat(features, dim=1)
