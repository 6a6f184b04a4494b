"""Alpha-WGAN: an autoencoder between two Wasserstein critics, one of volumes and one of codes."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cortexgen.modules.baselines.adversarial import AdversarialModule, gradient_penalty
from cortexgen.modules.baselines.base import RUN_TIME, scaled
from cortexgen.nets.baselines import convgan

CHANNELS, HIDDEN, LATENT = (64, 128, 256, 512), 4096, 1000


class AlphaWGAN(AdversarialModule):
    """3D alpha-WGAN (Kwon et al., MICCAI 2019): alpha-GAN with Wasserstein losses and gradient penalties.

    A batch has three optimizer steps, with r = G(E(x)) the reconstruction, s = G(z) a sample, C the critic of codes,
    and P the gradient penalty:

        E, G: 10 mean |r - x| - D(r) - D(s) - C(E(x))
        D: D(r) + D(s) - 2 D(x) + 10 (P(D; x, s) + P(D; x, r))
        C: C(E(x)) - C(z) + 10 P(C; E(x), z)

    All three see the same images; as published, D sees others. A batch of fewer than four has no statistics that
    C could normalize by: it then goes by running ones, which stay 0 and 1.

    Arguments:
        scale: of the numbers of channels and units; 1 is the published size.
        shape: of the volumes that are made; the working grid's unless given.
        reconstruction_weight: of the absolute error.
        penalty_weight: of the gradient penalties.
        lr: learning rate of Adam, of each network.
        num_samples: how many brains `predict` writes (a run-time option, like the next).
        sample_seed: sample k depends on this and k alone.
    """

    optimizer_steps = 3
    published_latent = LATENT
    padded_shape = staticmethod(convgan.padded_shape)

    def __init__(
        self,
        scale: float = 1.0,
        shape: tuple[int, int, int] | None = None,
        reconstruction_weight: float = 10.0,
        penalty_weight: float = 10.0,
        lr: float = 2e-4,
        num_samples: int = 12,
        sample_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=RUN_TIME)
        self.num_samples, self.sample_seed = num_samples, sample_seed
        self.begin()

    def networks(self, shape: Sequence[int]) -> dict[str, nn.Module]:
        channels, (hidden,) = scaled(CHANNELS, self.h.scale), scaled([HIDDEN], self.h.scale)
        return {
            "generator": convgan.Generator(shape, self.latent, channels[::-1], bias=False),
            "discriminator": convgan.Critic(channels),
            "encoder": convgan.Critic(channels, self.latent),
            "code_discriminator": convgan.CodeDiscriminator(self.latent, hidden),
        }

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for encoder and generator, the discriminator, and the critic of codes."""
        turns = (("encoder", "generator"), ("discriminator",), ("code_discriminator",))
        return [
            torch.optim.Adam(chain(*(self.nets[name].parameters() for name in names)), lr=self.h.lr) for names in turns
        ]

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.nets["generator"](self.nets["encoder"](x))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        generator, discriminator = self.nets["generator"], self.nets["discriminator"]
        encoder, critic = self.nets["encoder"], self.nets["code_discriminator"]
        x, weight = self.volumes(batch["image"]), self.h.penalty_weight
        with self.learning("encoder", "generator"):
            code = encoder(x)
            again, drawn = generator(code), generator(self.code(batch, stream=0))
            judged = discriminator(again).mean() + discriminator(drawn).mean() + critic(code).mean()
            error = (again - x).abs().mean()
            self.step(0, "generator", self.h.reconstruction_weight * error - judged, batch)
        with torch.no_grad():
            code = encoder(x)
            again, drawn = generator(code), generator(self.code(batch, stream=1))
        with self.learning("discriminator"):
            distance = 2 * discriminator(x).mean() - discriminator(again).mean() - discriminator(drawn).mean()
            penalty = gradient_penalty(discriminator, x, drawn, self.uniform(batch, stream=2))
            penalty = penalty + gradient_penalty(discriminator, x, again, self.uniform(batch, stream=3))
            self.step(1, "discriminator", weight * penalty - distance, batch)
        with self.learning("code_discriminator"):
            normal = self.code(batch, stream=4)
            distance = critic(normal).mean() - critic(code).mean()
            penalty = gradient_penalty(critic, code, normal, self.uniform(batch, stream=5))
            self.step(2, "code_discriminator", weight * penalty - distance, batch)
