"""What generative adversarial networks share: several networks of a volume's shape, each with its turn in a step."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from cortexgen.data.noise import SampleNoise
from cortexgen.errors import UserError
from cortexgen.modules.baselines.base import BaselineModule, scaled

BACKGROUND = -1.0  # the networks' range is -1 to 1


def centred(x: Tensor, shape: Sequence[int], value: float) -> Tensor:
    """`[B, C, D, H, W]` in the middle of volumes of another shape, cut there or filled up with `value`.

    Back to the shape that it had, each voxel is where it was.
    """
    margins = []
    for n, size in zip(reversed(x.shape[2:]), reversed(shape), strict=True):
        low = size // 2 - n // 2
        margins += [low, size - n - low]
    return F.pad(x, margins, value=value)


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """Binary cross-entropy of logits of what is real, or is not."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """How far a critic is from a slope of 1 between samples, in float32 (Gulrajani et al., NeurIPS 2017).

    The mean of `(||grad D(x)|| - 1)^2` at `x = share real + (1 - share) fake`, with a graph to the critic's parameters.

    Arguments:
        critic: `[B, *]` to `[B, 1]`.
        real, fake: `[B, *]`, without gradients.
        share: `[B, 1]`, uniform in [0, 1).
    """
    with torch.autocast(real.device.type, enabled=False):
        share = share.view(-1, *[1] * (real.dim() - 1))
        x = (share * real.float() + (1 - share) * fake.float()).detach().requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return ((slope.flatten(1).square().sum(dim=1) + 1e-15).sqrt() - 1).square().mean()


class AdversarialModule(BaselineModule):
    """Base of the adversarial generators: networks "generator", "discriminator", ..., each with an optimizer's turn.

    A subclass has the hyper-parameters `scale` and `shape`, the volume that is made (the working grid's unless given);
    it builds its networks by `networks`, calls `begin` at the end of its constructor, and trains by `step`. The global
    step counts the steps of all optimizers: `optimizer_steps` a batch.

    Attributes:
        published_latent: numbers of a code at scale 1.
    """

    published_latent: int

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.nets = nn.ModuleDict()

    @abstractmethod
    def networks(self, shape: Sequence[int]) -> dict[str, nn.Module]:
        """The networks, by name, for volumes of a shape that they can work on."""

    @staticmethod
    @abstractmethod
    def padded_shape(shape: Sequence[int]) -> tuple[int, ...]:
        """The smallest volume around one of `shape` that the networks can work on."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """Volumes `[B, 1, D, H, W]` in [-1, 1], encoded and generated again."""

    def begin(self) -> None:
        """Build the networks, if the shape is known already: those of a checkpoint are needed before any data."""
        if self.h.shape is not None:
            self.configure_model()

    def configure_model(self) -> None:
        """Build the networks, once; the shape is kept among the hyper-parameters."""
        if len(self.nets):
            return
        if self.h.shape is None:
            self.hparams["shape"] = tuple(int(n) for n in self.data.grid.shape)
        self.nets.update(self.networks(self.padded_shape(self.h.shape)))

    def shape_like(self, other: Self) -> None:
        if self.h.shape is None:
            self.hparams["shape"] = other.h.shape
            self.configure_model()

    def setup(self, stage: str) -> None:
        """Take the contract from the data, or compare.

        Raises:
            UserError: if fewer than two subjects are there to train on: statistics of a batch are none of one image.
        """
        super().setup(stage)
        if stage == "fit" and (n := len(self.data.side("train"))) < 2:
            raise UserError(f"{type(self).__name__} needs two subjects to train on at least, the cohort has {n}")

    def volumes(self, image: Tensor) -> Tensor:
        """Images `[B, 1, D, H, W]` in [0, 1] as the networks see them, in [-1, 1]."""
        x = centred(2 * image - 1, self.h.shape, BACKGROUND)
        return centred(x, self.padded_shape(self.h.shape), BACKGROUND)

    def images(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `volumes`, on a grid of `shape`."""
        return (centred(centred(x, self.h.shape, BACKGROUND), shape, BACKGROUND) + 1) / 2

    def code(self, batch: Mapping[str, Any], stream: int) -> Tensor:
        """Standard normal codes `[B, latent]` of the samples of a batch."""
        like = batch["image"].new_empty(len(batch["image"]), self.latent)
        return SampleNoise(batch, like, stream).normal()

    def uniform(self, batch: Mapping[str, Any], stream: int) -> Tensor:
        """Uniform numbers in [0, 1) of the samples of a batch, `[B, 1]`."""
        return SampleNoise(batch, batch["image"], stream).uniform(1)

    @property
    def latent(self) -> int:
        """Numbers of a code."""
        return scaled([self.published_latent], self.h.scale)[0]

    @contextmanager
    def learning(self, *names: str) -> Iterator[None]:
        """Networks that gradients go to the parameters of; they pass through the others."""
        try:
            for name, net in self.nets.items():
                net.requires_grad_(name in names)
            yield
        finally:
            self.nets.requires_grad_(True)

    def step(self, index: int, name: str, loss: Tensor, batch: Mapping[str, Any]) -> None:
        """One step of an optimizer down a loss, logged by its name.

        Raises:
            UserError: if the loss is no number.
        """
        optimizer: Any = self.optimizers()[index]  # type: ignore[index]
        optimizer.zero_grad()
        self.manual_backward(self.checked(loss))
        optimizer.step()
        self.log(f"train/{name}", loss.detach(), prog_bar=True, batch_size=len(batch["image"]))

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """Mean absolute error of the images, encoded and generated again."""
        image = batch["image"]
        again = self.images(self.reconstruct(self.volumes(image)), image.shape[2:])
        loss = (again - image).abs().mean()
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(image), sync_dist=True)

    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        z = torch.randn(1, self.latent, generator=random).to(self.device)
        return self.images(self.nets["generator"](z), self.contract["grid"]["shape"])[0]
