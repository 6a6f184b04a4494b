"""Stage 2: a diffusion model of velocity fields."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from cortexgen.data.covariates import SLOTS, CovariateEncoder
from cortexgen.diffusion import (
    CosineSchedule,
    GaussianPrior,
    Prediction,
    SamplerName,
    diffuse,
    sample_field,
    to_x0,
    training_target,
)
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.io.bids import Row
from cortexgen.metrics import regional_volumes, volume_weights
from cortexgen.modules.base import StageModule
from cortexgen.modules.cohort_writer import CohortWriter
from cortexgen.nets import FieldUNet
from cortexgen.nets.field_unet import SpatialAttention
from cortexgen.spatial import integrate, log_jacobian, warp


class FieldDiffusionModule(StageModule):
    """Learns the distribution of a cohort's velocity fields, given covariates or not.

    Fields are centred and scaled to unit variance by numbers kept in the checkpoint; time is continuous with a cosine
    log-SNR. A sample is exp(v) of a drawn velocity, checked for folds and for regional volumes outside the training
    mean ± 4 SD, and drawn again if it fails.

    Arguments:
        width: channels of the finest level.
        multipliers: of the width, a level each.
        blocks: residual blocks a level.
        spatial_attention: "full", "linear" or "none" for each level, finest first.
        heads: of the attention.
        head_size: channels of a head.
        dropout: in the residual blocks.
        covariates: columns of participants.tsv to condition on.
        covariate_dropout: share of training samples without any, and of single values hidden.
        prediction: what the network predicts: "v", "eps" (the paper) or "x0".
        prior_modes: predict what a Gaussian prior of so many principal modes of the training fields leaves over
            instead, in units of its expected size; 0 for none.
        log_snr_max: of the schedule.
        log_snr_min: of the schedule.
        center: subtract the mean training field.
        clip: bound of |x0| at sampling in units of the scaled field; needed with "eps".
        lr: learning rate of Adam.
        betas: of Adam.
        warmup_steps: of the learning rate, linear.
        lr_decay: let it fall to a tenth as half a cosine.
        sampler: "dpm++", "ddim" or "ancestral" (a run-time option, like those that follow).
        steps: network evaluations a sample.
        guidance: weight of the condition; 1 is none beyond conditioning.
        conditions: values to condition on, such as `{age: 50, sex: F}`; unconditional without.
        num_samples: how many brains `predict` writes.
        sample_seed: sample k depends on this and k alone.
        spacing: voxel size of the written images in millimetres; the training images' unless given.
        max_redraws: how often a sample that fails its checks is drawn again.
    """

    def __init__(
        self,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        spatial_attention: Sequence[SpatialAttention] = ("none", "linear", "full"),
        heads: int = 4,
        head_size: int = 16,
        dropout: float = 0.0,
        covariates: Sequence[str] = (),
        covariate_dropout: float = 0.1,
        prediction: Prediction = "v",
        prior_modes: int = 0,
        log_snr_max: float = 20.0,
        log_snr_min: float = -20.0,
        center: bool = True,
        clip: float | None = None,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_steps: int = 0,
        lr_decay: bool = False,
        sampler: SamplerName = "dpm++",
        steps: int = 24,
        guidance: float = 1.0,
        conditions: dict[str, float | str] | None = None,
        num_samples: int = 12,
        sample_seed: int = 0,
        spacing: float | None = None,
        max_redraws: int = 10,
    ) -> None:
        super().__init__()
        run_time = [
            "sampler",
            "steps",
            "guidance",
            "conditions",
            "num_samples",
            "sample_seed",
            "spacing",
            "max_redraws",
        ]
        self.save_hyperparameters(ignore=run_time)
        self.sampler, self.steps, self.guidance = sampler, steps, guidance
        self.conditions, self.num_samples, self.sample_seed = conditions, num_samples, sample_seed
        self.spacing, self.max_redraws = spacing, max_redraws
        self.schedule = CosineSchedule(log_snr_max, log_snr_min)
        self.net = FieldUNet(
            3, width, multipliers, blocks, spatial_attention, SLOTS * len(covariates), heads, head_size, dropout
        )

    @property
    def encoder(self) -> CovariateEncoder:
        """Of the covariates; its numbers live in the contract."""
        return CovariateEncoder(self.contract.get("covariates", {}))

    @property
    def prior(self) -> GaussianPrior:
        """Of the scaled fields; its modes live in the contract."""
        return GaussianPrior(**self.contract["prior"])

    def setup(self, stage: str) -> None:
        """Take the contract from the data, and on the first fit the field's mean and scale and the volumes' range."""
        fresh = not self.contract
        super().setup(stage)
        if stage == "fit" and fresh:
            self.contract |= self._statistics()

    def _statistics(self) -> dict[str, Any]:
        data = self.data
        fields = data.training_fields()
        mean = fields.mean(dim=0) if self.h.center else torch.zeros_like(fields[0])
        scale = float((fields - mean).square().mean().sqrt())
        if scale == 0:
            raise UserError("the training fields do not vary")
        specs = CovariateEncoder.fit(self.h.covariates, [s.covariates for s in data.side("train")]).specs
        out = {"mean": mean, "scale": scale, "covariates": specs}
        if self.h.prior_modes:
            prior = GaussianPrior.fit((fields - mean) / scale, self.h.prior_modes)
            out |= {"prior": {"modes": prior.modes, "variances": prior.variances, "rest": prior.rest}}
        if data.template.labels is not None:
            weights = volume_weights(data.template.labels, data.template.grid, data.grid, len(data.template.classes))
            volumes = [
                regional_volumes(f[None], weights, data.grid.voxel_volume, data.info["IntegrationSteps"])
                for f in fields
            ]
            logs = torch.cat(volumes).log()
            out |= {"log_volume_mean": logs.mean(dim=0), "log_volume_std": logs.std(dim=0)}
        return out

    def normalized(self, velocity: Tensor) -> Tensor:
        """Velocities `[B, 3, d, h, w]` in voxels, centred and scaled."""
        return (velocity - self.contract["mean"].to(velocity)) / self.contract["scale"]

    def _condition(self, rows: Sequence[Mapping[str, Any]], training: bool) -> Tensor | None:
        if not self.h.covariates:
            return None
        c = self.encoder.encode(rows, self.device)
        if training:
            keep = torch.rand(len(c), 1 + len(self.h.covariates), device=c.device) >= self.h.covariate_dropout
            c = c * (keep[:, :1] & keep[:, 1:]).repeat_interleave(SLOTS, dim=1)
        return c

    def _loss(self, batch: dict[str, Any], t: Tensor, noise: Tensor, training: bool) -> Tensor:
        x0 = self.normalized(batch["velocity"])
        log_snr = self.schedule.log_snr(t)
        z = diffuse(x0, noise, log_snr)
        output = self.net(z, log_snr, self._condition(batch["covariates"], training))
        if self.h.prior_modes:
            mean, size = self.prior.posterior(z, log_snr)
            return (output - (x0 - mean) / size).square().mean()
        return (output - training_target(x0, noise, log_snr, self.h.prediction)).square().mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = batch["velocity"]
        # One uniform offset for the batch, spread evenly: less variance than independent times (Kingma et al., 2021).
        t = (torch.rand(1, device=x.device) + torch.arange(len(x), device=x.device) / len(x)) % 1
        loss = self._loss(batch, t, torch.randn_like(x), training=True)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """The denoising loss at eight fixed times with fixed noise."""
        x = batch["velocity"]
        generator = torch.Generator().manual_seed(0)
        times = (torch.arange(8) + 0.5) / 8
        noise = [torch.randn(x.shape, generator=generator).to(x) for _ in times]
        losses = [
            self._loss(batch, t.expand(len(x)).to(x.device), n, training=False)
            for t, n in zip(times, noise, strict=True)
        ]
        self.log(f"{stage}/loss", torch.stack(losses).mean(), prog_bar=True, batch_size=len(x), sync_dist=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> Any:
        h = self.h
        return self.adam(h.lr, tuple(h.betas), h.warmup_steps, h.lr_decay)

    def denoise(self, z: Tensor, log_snr: Tensor, condition: Tensor | None) -> Tensor:
        """x0 of z, with classifier-free guidance `x0_u + w (x0_c - x0_u)` (Ho & Salimans, 2022) where conditioned."""

        def x0(c: Tensor | None) -> Tensor:
            output = self.net(z, log_snr, c)
            if self.h.prior_modes:
                mean, size = self.prior.posterior(z, log_snr)
                return mean + size * output
            return to_x0(output, z, log_snr, self.h.prediction, self.h.clip)

        if condition is None:
            free = torch.zeros(len(z), SLOTS * len(self.h.covariates), device=z.device)
            return x0(free if self.h.covariates else None)
        if self.guidance == 1:
            return x0(condition)
        free = x0(torch.zeros_like(condition))
        return free + self.guidance * (x0(condition) - free)

    @torch.no_grad()
    def sample(self, index: int, attempt: int = 0, conditions: Mapping[str, Any] | None = None) -> Tensor:
        """Draw velocity number `index` of the cohort of `sample_seed`, `[3, d, h, w]` in voxels of its grid.

        It is drawn alone, so that it depends on seed, index and attempt only.
        """
        key = f"{self.sample_seed}:{index}:{attempt}".encode()
        generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1)
        shape = (1, 3, *self.contract["grid"]["shape"])
        chosen = self.conditions if conditions is None else conditions
        condition = self._condition([chosen], training=False) if chosen else None
        x0 = sample_field(
            lambda z, level: self.denoise(z, level, condition),
            lambda: torch.randn(shape, generator=generator).to(self.device),
            self.schedule,
            self.sampler,
            self.steps,
        )
        return (x0[0].float() * self.contract["scale"] + self.contract["mean"].to(x0.device)).cpu()

    def predict_dataloader(self) -> DataLoader:
        """The numbers of the samples."""
        for name in ("num_samples", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        return DataLoader(range(self.num_samples), batch_size=1)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        if "mean" not in self.contract:
            raise UserError("there are no trained weights to sample from: give --ckpt_path")
        if self.conditions:
            for line in self.encoder.check(self.conditions):
                warnings.warn(line, stacklevel=2)
        self.writer = CohortWriter(self)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Row | None:
        return self.writer.write(int(batch))

    def on_predict_end(self) -> None:
        self.writer.close()

    def example(self) -> dict[str, Any] | None:
        """A brain drawn from the present weights, for pictures of training."""
        if self.data is None or "mean" not in self.contract:
            return None
        grid = Grid.from_dict(self.contract["grid"])
        steps = self.contract["integration_steps"]
        template = self.data.template.to(grid)
        velocity = self.sample(0)[None]
        displacement = integrate(velocity, steps)
        warped = warp(template.image[None], displacement)[0]
        jacobian = log_jacobian(integrate(-velocity, steps))[0]
        return {
            "moving": template.image,
            "warped": warped,
            "displacement": displacement[0],
            "log_jacobian": jacobian,
            "grid": grid,
        }
