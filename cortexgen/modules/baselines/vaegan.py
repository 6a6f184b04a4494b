"""VAE-GAN: a variational autoencoder whose decoder a discriminator judges."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cortexgen.modules.baselines.adversarial import AdversarialModule, cross_entropy
from cortexgen.modules.baselines.base import RUN_TIME, scaled
from cortexgen.nets.baselines import convgan

CHANNELS, HIDDEN, LATENT = (64, 128, 256, 512), 2048, 1000


class VAEGAN(AdversarialModule):
    """VAE-GAN (Larsen et al., ICML 2016) of brain volumes, as Kwon et al. (MICCAI 2019) train it.

    A batch has three optimizer steps, with r = G(E(x)) the reconstruction and s = G(z) a sample:

        D: BCE(D(x), 1) + BCE(D(r), 0) + BCE(D(s), 0)
        G: 20 mean (r - x)^2 - BCE(D(r), 0) - BCE(D(s), 0)
        E: KL(E(x) || N(0, 1)) / numbers of a code + 10 mean (r - x)^2

    Arguments:
        scale: of the numbers of channels and units; 1 is the published size.
        shape: of the volumes that are made; the working grid's unless given.
        reconstruction_weight: of the squared error, to G and to E.
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
        reconstruction_weight: tuple[float, float] = (20.0, 10.0),
        lr: float = 1e-4,
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
            "generator": convgan.Generator(shape, self.latent, channels[::-1]),
            "discriminator": convgan.Critic(channels),
            "encoder": convgan.VariationalEncoder(channels, hidden, self.latent),
        }

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the discriminator, the generator and the encoder."""
        names = ("discriminator", "generator", "encoder")
        return [torch.optim.Adam(self.nets[name].parameters(), lr=self.h.lr) for name in names]

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.nets["generator"](self.nets["encoder"](x)[0])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        generator, discriminator, encoder = (self.nets[k] for k in ("generator", "discriminator", "encoder"))
        x, (to_generator, to_encoder) = self.volumes(batch["image"]), self.h.reconstruction_weight
        with self.learning("encoder", "generator"):
            mean, log_variance = encoder(x)
            code = mean + (log_variance / 2).exp() * self.code(batch, stream=0)
            again, drawn = generator(code.detach()), generator(self.code(batch, stream=1))
        with self.learning("discriminator"):
            real, fake = discriminator(x), [discriminator(image.detach()) for image in (again, drawn)]
            loss = cross_entropy(real, True) + sum(cross_entropy(logits, False) for logits in fake)
            self.step(0, "discriminator", loss, batch)
        with self.learning("generator"):  # what the discriminator says of x doesn't depend on it
            seen = sum(cross_entropy(discriminator(image), False) for image in (again, drawn))
            self.step(1, "generator", to_generator * (again - x).square().mean() - seen, batch)
        with self.learning("encoder"):
            divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
            error = (generator(code) - x).square().mean()
            self.step(2, "encoder", divergence + to_encoder * error, batch)
