"""MONAI's latent diffusion model: an autoencoder, then a diffusion model of what it makes of images."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.data.noise import SampleNoise
from cortexgen.errors import UserError
from cortexgen.generation.velocities import Carried
from cortexgen.io import Grid
from cortexgen.losses import loss_at_fixed_times
from cortexgen.modules.baselines.base import RUN_TIME, BaselineModule, scaled
from cortexgen.nets.baselines.latentdiffusion import autoencoder, denoiser, discriminator


class LatentDiffusion(BaselineModule):
    """Diffusion in the latents of an autoencoder, all of it MONAI's (Pinaya et al., MICCAI workshop DGM4MICCAI 2022).

    Networks, schedulers, the inferer and the adversarial loss are MONAI's, and their numbers those of its tutorial
    3d_ldm. The autoencoder is trained first, with `L1 + w KL`, later also against a discriminator of patches; then it
    is kept, and a U-Net learns to denoise its latents, which are divided by the deviation of the first ones. The
    tutorial's perceptual loss is left out: its network's weights are not MONAI's to ship, and would be fetched.

    Arguments:
        scale: of the numbers of channels; 1 is published.
        channels: of the autoencoder's levels.
        latents: channels of the latents.
        unet_channels: of the denoiser's levels.
        discriminator_channels: of its first layer.
        autoencoder_share: of the training's budget, that the autoencoder has.
        adversarial_from: share of the autoencoder's part after which it is trained against the discriminator.
        kl_weight: of the latents' divergence from a standard normal distribution, summed over an image.
        adversarial_weight: of the least-squares adversarial loss.
        lr: learning rate of Adam, of autoencoder and discriminator.
        unet_lr: of Adam, of the denoiser.
        steps: of DDIM for a sample, 50 unless given (a run-time option, as those that follow; the checkpoint keeps it).
        num_samples: how many brains `predict` writes.
        sample_seed: sample k depends on this and k alone.
    """

    stage = "the baseline LatentDiffusion"
    run_options = ("steps",)
    steps = Carried(50)
    latent_scale: Tensor

    def __init__(
        self,
        scale: float = 1.0,
        channels: Sequence[int] = (64, 128, 256),
        latents: int = 8,
        unet_channels: Sequence[int] = (256, 256, 512),
        discriminator_channels: int = 32,
        autoencoder_share: float = 0.5,
        adversarial_from: float = 0.1,
        kl_weight: float = 1e-7,
        adversarial_weight: float = 0.01,
        lr: float = 1e-5,
        unet_lr: float = 1e-5,
        steps: int | None = None,
        num_samples: int = 12,
        sample_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=[*RUN_TIME, "steps"])
        self.steps, self.num_samples, self.sample_seed = steps, num_samples, sample_seed
        self.automatic_optimization = False
        self.autoencoder: Any = autoencoder(scaled(channels, scale), latents)
        self.discriminator = discriminator(*scaled([discriminator_channels], scale))
        self.denoiser = denoiser(scaled(unet_channels, scale), latents)
        self.shrinking = 2 ** (len(channels) - 1)  # of the latents' sides against the image's
        self.multiple = 2 ** (len(unet_channels) - 1)  # of the latents' sides in the denoiser
        # 1 / deviation of the latents, 0 while the autoencoder is trained. It has a dimension, so that it makes
        # bfloat16 latents float32: MONAI's schedulers take their numbers over in the latents' precision, for good.
        self.register_buffer("latent_scale", torch.zeros(1))

    @property
    def diffusing(self) -> bool:
        """Whether the autoencoder is done."""
        return bool(self.latent_scale > 0)

    @cached_property
    def adversarial(self) -> Any:
        """MONAI's least-squares loss of what the discriminator says."""
        from monai.losses import PatchAdversarialLoss  # MONAI takes a second

        return PatchAdversarialLoss(criterion="least_squares")

    def _scheduler(self, kind: str) -> Any:
        from monai.networks import schedulers

        betas = {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195}
        return getattr(schedulers, kind)(num_train_timesteps=1000, clip_sample=False, **betas)

    @cached_property
    def scheduler(self) -> Any:
        """MONAI's, that training adds noise by."""
        return self._scheduler("DDPMScheduler")

    @property
    def inferer(self) -> Any:
        """MONAI's, that knows the latents' scale.

        It could pad latents for the denoiser, too, but cuts them elsewhere than it padded where the difference is odd.
        """
        from monai.inferers import LatentDiffusionInferer

        return LatentDiffusionInferer(self.scheduler, cast(Any, self.latent_scale))

    def padded(self, image: Tensor) -> Tensor:
        """Images with zeros behind each axis, up to a multiple of what autoencoder and denoiser divide sides by."""
        d, h, w = (-n % (self.shrinking * self.multiple) for n in image.shape[2:])
        return F.pad(image, (0, w, 0, h, 0, d))

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Of the latents of an image of a shape, padded or not, without the batch."""
        step = self.shrinking * self.multiple
        return (self.h.latents, *(-(-n // step) * self.multiple for n in shape))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam, one each for autoencoder, discriminator and denoiser."""
        rates = ((self.autoencoder, self.h.lr), (self.discriminator, self.h.lr), (self.denoiser, self.h.unet_lr))
        return [torch.optim.Adam(net.parameters(), lr=lr) for net, lr in rates]

    def _optimizers(self, **options: bool) -> Sequence[Any]:
        return cast(Sequence[Any], self.optimizers(**options))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """A step of the autoencoder and its discriminator, or of the denoiser; each counts as one step."""
        x, progress = self.padded(batch["image"]), None
        if not self.diffusing:
            progress = self.progress
            if progress >= self.h.autoencoder_share:
                self._measure_latents(x)
        if self.diffusing:
            self._step_denoiser(batch, x)
        else:
            share = cast(float, progress) / self.h.autoencoder_share
            self._step_autoencoder(x, share >= self.h.adversarial_from)

    @torch.no_grad()
    def _measure_latents(self, x: Tensor) -> None:
        """Set the latents' scale by this batch, that of all processes; this ends the autoencoder's part."""
        latents = self.autoencoder.encode_stage_2_inputs(x).float()
        moments = torch.stack([latents.mean(), latents.square().mean()])
        mean, square = self.trainer.strategy.reduce(moments, reduce_op="mean")
        self.latent_scale.fill_(float((square - mean.square()).rsqrt()))

    def _step_autoencoder(self, x: Tensor, against: bool) -> None:
        # A step past Lightning's wrapper isn't counted: a batch is one step of the training.
        counted, other = self._optimizers()[0], self._optimizers(use_pl_optimizer=False)[1]
        self.discriminator.requires_grad_(False)
        reconstruction, mean, deviation = self.autoencoder(x)
        absolute, divergence = F.l1_loss(reconstruction.float(), x), self._divergence(mean, deviation)
        loss = absolute + self.h.kl_weight * divergence
        if against:
            fooled = self._judged(reconstruction, real=True, for_discriminator=False)
            loss = loss + self.h.adversarial_weight * fooled
        counted.zero_grad()
        self.manual_backward(self.checked(loss))
        counted.step()
        self.discriminator.requires_grad_(True)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        self.log_dict({"train/l1": absolute, "train/kl": divergence}, batch_size=len(x))
        if against:
            sides = ((reconstruction.detach(), False), (x, True))
            judged = [self._judged(image, real, for_discriminator=True) for image, real in sides]
            loss = torch.stack(judged).mean()
            other.zero_grad()
            self.manual_backward(self.checked(loss))
            other.step()
            self.log("train/discriminator", loss, batch_size=len(x))

    @staticmethod
    def _divergence(mean: Tensor, deviation: Tensor) -> Tensor:
        """KL from a standard normal distribution, summed over a sample, of latents of a mean and a deviation."""
        mean, variance = mean.float(), deviation.float().square()
        return 0.5 * (mean.square() + variance - variance.clamp(min=1e-20).log() - 1).flatten(1).sum(dim=1).mean()

    def _judged(self, image: Tensor, real: bool, for_discriminator: bool) -> Tensor:
        answer = self.discriminator(image.contiguous())[-1].float()
        return cast(Tensor, self.adversarial(answer, target_is_real=real, for_discriminator=for_discriminator))

    def _step_denoiser(self, batch: Mapping[str, Any], x: Tensor) -> None:
        optimizer = self._optimizers()[2]
        spread = batch["spread"] if "spread" in batch else torch.rand(len(x))
        like = x.new_empty(len(x), *self.latent_shape(x.shape[2:]))
        loss = self._denoising(x, spread, SampleNoise(batch, like).normal())
        optimizer.zero_grad()
        self.manual_backward(self.checked(loss))
        optimizer.step()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))

    def _denoising(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the noise that the denoiser sees at times in [0, 1)."""
        steps = (t * self.scheduler.num_train_timesteps).long().to(self.device)
        answer = self.inferer(x, self.autoencoder, self.denoiser, noise, steps)
        return F.mse_loss(answer.as_subclass(Tensor).float(), noise)  # a MetaTensor

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """Absolute error of the reconstruction plus the denoising loss at four fixed times with fixed noise.

        Without a denoiser the latter is 1, what no answer costs.
        """
        x, denoising = self.padded(batch["image"]), torch.ones((), device=self.device)
        absolute = F.l1_loss(self.autoencoder.decode(self.autoencoder.encode(x)[0]).float(), x)
        if self.diffusing:
            like = x.new_empty(len(x), *self.latent_shape(x.shape[2:]))
            denoising = loss_at_fixed_times(lambda t, noise: self._denoising(x, t, noise), like, 4)
        measured = {"loss": absolute + denoising, "l1": absolute, "denoising": denoising}
        named = {f"{stage}/{name}": value for name, value in measured.items()}
        self.log_dict(named, batch_size=len(x), sync_dist=True)

    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        """An image `[1, D, H, W]`, decoded from latents that MONAI's DDIM made of noise.

        Raises:
            UserError: if the training ended in the autoencoder's part, or for more steps than there are.
        """
        if not self.diffusing:
            raise UserError("these weights are an autoencoder's that has no denoiser yet; train longer")
        if not 1 <= self.steps <= self.scheduler.num_train_timesteps:
            raise UserError(f"steps: expected 1 to {self.scheduler.num_train_timesteps}, got {self.steps}")
        d, h, w = shape = Grid.from_dict(self.contract["grid"]).shape
        noise = torch.randn((1, *self.latent_shape(shape)), generator=random).to(self.device)
        scheduler = self._scheduler("DDIMScheduler")
        scheduler.set_timesteps(self.steps)
        image = self.inferer.sample(noise, self.autoencoder, self.denoiser, scheduler, verbose=False)
        return cast(Tensor, image.as_subclass(Tensor)[0, :, :d, :h, :w])
