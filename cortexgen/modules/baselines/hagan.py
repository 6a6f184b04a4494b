"""HA-GAN: the whole volume at a quarter of the resolution, and slabs of it at all of it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cortexgen.modules.baselines.adversarial import AdversarialModule, cross_entropy
from cortexgen.modules.baselines.base import RUN_TIME, scaled
from cortexgen.nets.baselines import hagan

LATENT, GENERATOR, LOW = 1024, (512, 512, 256, 128, 64, 32), (32, 16)
ENCODER, CODE_ENCODER = (32, 64), (64, 64, 128, 256)
HIGH_JUDGE, LOW_JUDGE, HIDDEN = (32, 64, 128, 256, 512), (64, 128, 256), (128, 64)


def _small(x: Tensor) -> Tensor:
    """Every fourth voxel, `[B, 1, D, H, W]` to `[B, 1, D / 4, H / 4, W / 4]`."""
    return x[:, :, :: hagan.FINE, :: hagan.FINE, :: hagan.FINE]


def slabs(x: Tensor, first: Tensor, size: int) -> Tensor:
    """`size` slices of each sample of `[B, C, D, H, W]`, from the one that `first`, `[B]` integers, says."""
    return torch.stack([sample[:, k : k + size] for sample, k in zip(x, first.tolist(), strict=True)])


class HAGAN(AdversarialModule):
    """Hierarchical amortized GAN (Sun et al., IEEE JBHI 2022), unconditional.

    A generator makes features of the whole volume at a quarter of the resolution, and of them the small volume and, in
    training, a slab of consecutive axial slices of the large one: a sixth of the volume (24 of 144). In sampling it
    makes the whole at once. A batch has four optimizer steps:

        D: BCE(D(x_slab, x_small), 1) + BCE(D(s_slab, s_small), 0), s = G(z)
        G: BCE(D(s_slab, s_small), 1)
        E, of a slab's features: mean |G(E(x_slab)) - x_slab|
        C, of the code of all slabs' features: the mean of mean |r_slab - x_slab| and mean |r_small - x_small|,
        r = G(C(E(x)))

    Each sample has a slab of its own, beginning at a multiple of four, so that it is the one of its features.

    Arguments:
        scale: of the numbers of channels and units; 1 is the published size.
        shape: of the volumes that are made; the working grid's unless given.
        lr: learning rates of Adam: of the generator, the discriminator, and both encoders.
        betas: of Adam.
        num_samples: how many brains `predict` writes (a run-time option, like the next).
        sample_seed: sample k depends on this and k alone.
    """

    optimizer_steps = 4
    published_latent = LATENT
    padded_shape = staticmethod(hagan.padded_shape)

    def __init__(
        self,
        scale: float = 1.0,
        shape: tuple[int, int, int] | None = None,
        lr: tuple[float, float, float] = (1e-4, 4e-4, 1e-4),
        betas: tuple[float, float] = (0.0, 0.999),
        num_samples: int = 12,
        sample_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=RUN_TIME)
        self.num_samples, self.sample_seed = num_samples, sample_seed
        self.begin()

    def networks(self, shape: Sequence[int]) -> dict[str, nn.Module]:
        def channels(published: Sequence[int]) -> tuple[int, ...]:
            return scaled(published, self.h.scale)

        judges = (channels(each) for each in (HIGH_JUDGE, LOW_JUDGE, HIDDEN))
        return {
            "generator": hagan.Generator(shape, self.latent, channels(GENERATOR), channels(LOW)),
            "discriminator": hagan.Discriminator(shape, *judges),
            "encoder": hagan.SlabEncoder(channels(ENCODER)),
            "code_encoder": hagan.CodeEncoder(shape, self.latent, channels(CODE_ENCODER)),
        }

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the discriminator, the generator, and the two encoders."""
        generator, discriminator, encoder = self.h.lr
        rates = {"discriminator": discriminator, "generator": generator, "encoder": encoder, "code_encoder": encoder}
        return [torch.optim.Adam(self.nets[k].parameters(), lr, tuple(self.h.betas)) for k, lr in rates.items()]

    def _features(self, x: Tensor) -> Tensor:
        """Of all slabs, one beside the other."""
        parts = x.split(hagan.slab_size(x.shape[2]), dim=2)
        return torch.cat([self.nets["encoder"](part) for part in parts], dim=2)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.nets["generator"](self.nets["code_encoder"](self._features(x)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        generator, discriminator = self.nets["generator"], self.nets["discriminator"]
        encoder, code_encoder = self.nets["encoder"], self.nets["code_encoder"]
        x, fine = self.volumes(batch["image"]), hagan.FINE
        depth, size = x.shape[2], hagan.slab_size(x.shape[2])
        places = (depth - size) // fine + 1
        first = fine * (self.uniform(batch, stream=0)[:, 0] * places).long()
        place = first[:, None] / max(1, depth - size)
        slab, small = slabs(x, first, size), _small(x)

        def made(code: Tensor) -> tuple[Tensor, Tensor]:
            features = generator.features(code)  # type: ignore[operator]
            part = slabs(features, first // fine, size // fine)
            return generator.large(part), generator.small(features)  # type: ignore[operator]

        with self.learning("discriminator"):
            with torch.no_grad():
                fake = made(self.code(batch, stream=1))
            both = (torch.cat(pair) for pair in zip((slab, small), fake, strict=True))
            real, false = discriminator(*both, torch.cat([place, place])).chunk(2)
            self.step(0, "discriminator", cross_entropy(real, True) + cross_entropy(false, False), batch)
        with self.learning("generator"):
            fake = made(self.code(batch, stream=2))
            self.step(1, "generator", cross_entropy(discriminator(*fake, place), True), batch)
        with self.learning("encoder"):
            self.step(2, "encoder", (generator.large(encoder(slab)) - slab).abs().mean(), batch)  # type: ignore[operator]
        with self.learning("code_encoder"):
            with torch.no_grad():
                features = self._features(x)
            large, little = made(code_encoder(features))
            error = ((large - slab).abs().mean() + (little - small).abs().mean()) / 2
            self.step(3, "code_encoder", error, batch)
