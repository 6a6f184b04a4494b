"""Stage 2: a diffusion model of velocity fields."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from cortexgen.contracts import Generator
from cortexgen.data.covariates import SLOTS
from cortexgen.data.field_priors import FieldPriors
from cortexgen.data.field_statistics import field_statistics
from cortexgen.data.noise import SampleNoise
from cortexgen.diffusion import (
    CosineSchedule,
    GaussianPrior,
    Posterior,
    Prediction,
    SamplerName,
    alpha_sigma,
    diffuse,
    sampler_named,
    to_x0,
)
from cortexgen.generation.field_generator import FieldGenerator
from cortexgen.generation.velocities import SAMPLING, Carried, Velocities
from cortexgen.io import Grid
from cortexgen.losses import DenoisingLoss, loss_at_fixed_times
from cortexgen.modules.generator import GeneratorModule
from cortexgen.nets import FieldUNet
from cortexgen.nets.field_unet import SpatialAttention
from cortexgen.runner.threads import single_thread
from cortexgen.spatial import integrate, log_jacobian, warp

RUN_TIME = ["sampler", "steps", "guidance", "correction", "conditions", "num_samples", "sample_seed", "spacing"]
RUN_TIME += ["max_redraws", "native_size", "save_fields", "micro_batch"]


class FieldDiffusionModule(GeneratorModule, Velocities):
    """Learns the distribution of a cohort's velocity fields, given covariates or not.

    Fields are centred and scaled to about unit variance by numbers kept in the checkpoint; time is continuous with a
    cosine log-SNR. A sample is exp(v) of a drawn velocity, checked for folds and for regional volumes outside the
    training mean ± 4 SD, and drawn again if it fails.

    Arguments:
        width: channels of the finest level.
        multipliers: of the width, a level each.
        blocks: residual blocks a level.
        spatial_attention: "full", "linear" or "none" for each level, finest first.
        heads: of the attention.
        head_size: channels of a head.
        dropout: in the residual blocks.
        patch: the network works on blocks of this many voxels a side.
        place: learned maps of place that it sees beside the coordinates.
        covariates: columns of participants.tsv to condition on.
        covariate_dropout: share of training samples without any, and of single values hidden.
        prediction: what the network predicts: "v", "eps" (the paper) or "x0".
        prior_modes: predict what a Gaussian prior of the fields leaves over instead, in units of its expected size; it
            has so many principal modes over a stationary remainder. 0 for no prior.
        cross_fit: train with priors fitted without the subject, to so many parts of the cohort; 0 uses one for all.
        scaling: one number for the whole field, or one for each voxel.
        gradient_weight: of the squared gradient of the network's error, beside the squared error (a Sobolev norm).
        log_snr_max: of the schedule.
        log_snr_min: of the schedule.
        levels: train at log-SNRs of times drawn uniformly (None), or uniform between these two.
        center: subtract the mean training field.
        clip: bound of |x0| at sampling in units of the scaled field; needed with "eps".
        lr: learning rate of Adam.
        betas: of Adam.
        warmup_steps: of the learning rate, linear.
        lr_decay: let it fall to a tenth as half a cosine.
        sampler: "dpm++", "ddim" or "ancestral" (a run-time option, like those that follow). This one and the next
            three are kept in the checkpoint, and hold wherever it is drawn from unless given again; dpm++, 12, 1 and
            0.5 without.
        steps: network evaluations a sample.
        guidance: weight of the condition; 1 is none beyond conditioning.
        correction: weight of the network's correction to the prior; 0 draws from the prior alone.
        conditions: values to condition on, such as `{age: 50, sex: F}`; unconditional without.
        num_samples: how many brains `predict` writes.
        sample_seed: sample k depends on this and k alone.
        spacing: voxel size of the written images in millimetres; the training images' unless given.
        max_redraws: how often a sample that fails its checks is drawn again.
        native_size: draw the size of the head too (covariate brain_volume_ml), and write images of that size.
        save_fields: write each sample's velocity, inverse transform and log |J| too.
        micro_batch: samples that are drawn in one call of the network; 1 on a CPU and 8 on a GPU unless given. A
            sample's last bits depend on it.
    """

    stage = "stage 2"
    run_options = ("sampler", "steps", "guidance", "correction")
    sampler, steps = Carried("dpm++"), Carried(12)
    guidance, correction = Carried(1.0), Carried(0.5)

    def __init__(
        self,
        width: int = 32,
        multipliers: Sequence[int] = (1, 2, 4),
        blocks: int = 1,
        spatial_attention: Sequence[SpatialAttention] = ("none", "linear", "full"),
        heads: int = 4,
        head_size: int = 16,
        dropout: float = 0.0,
        patch: int = 1,
        place: int = 0,
        covariates: Sequence[str] = (),
        covariate_dropout: float = 0.1,
        prediction: Prediction = "v",
        prior_modes: int = 0,
        cross_fit: int = 5,
        scaling: Literal["constant", "voxel"] = "constant",
        gradient_weight: float = 0.0,
        log_snr_max: float = 20.0,
        log_snr_min: float = -20.0,
        levels: tuple[float, float] | None = None,
        center: bool = True,
        clip: float | None = None,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_steps: int = 0,
        lr_decay: bool = False,
        sampler: SamplerName | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        correction: float | None = None,
        conditions: dict[str, float | str] | None = None,
        num_samples: int = 12,
        sample_seed: int = 0,
        spacing: float | None = None,
        max_redraws: int = 10,
        native_size: bool = False,
        save_fields: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=RUN_TIME)
        self.sampler, self.steps, self.guidance, self.correction = sampler, steps, guidance, correction
        self.conditions, self.num_samples, self.sample_seed = conditions, num_samples, sample_seed
        self.spacing, self.max_redraws = spacing, max_redraws
        self.native_size, self.save_fields, self.micro_batch = native_size, save_fields, micro_batch
        self.schedule = CosineSchedule(log_snr_max, log_snr_min)
        vector, fields = SLOTS * len(covariates), 6 if prior_modes else 3
        shape = (width, multipliers, blocks, spatial_attention, vector, heads, head_size, dropout, patch, place)
        self.net = FieldUNet(fields, *shape, out=3)
        self.objective = DenoisingLoss(prediction, gradient_weight)
        self._priors: FieldPriors | None = None

    @cached_property
    def _prior(self) -> GaussianPrior:
        return GaussianPrior(**self.contract["prior"])

    @property
    def prior(self) -> GaussianPrior:
        """Of the scaled fields; its numbers live in the contract, and not among the parameters."""
        return self._prior.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.contract[SAMPLING] = {name: getattr(self, name) for name in self.run_options}
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.__dict__.pop("_prior", None)

    def setup(self, stage: str) -> None:
        """Take the contract from the data, and on the first fit the statistics of the fields.

        One process computes them, the others read them; see `cache.remember`.
        """
        fresh = not self.contract
        super().setup(stage)
        if stage != "fit":
            return
        h, data = self.h, self.data
        if fresh:
            options = (list(h.covariates), h.center, h.scaling == "voxel")
            self.contract |= data.remembered("statistics", options, lambda: field_statistics(data, *options))
        if h.prior_modes and (fresh or h.cross_fit > 1):
            self._priors = FieldPriors.fit(data, self.contract, h.prior_modes, h.cross_fit)
            self.contract.setdefault("prior", self._priors.whole.state())

    def normalized(self, velocity: Tensor) -> Tensor:
        """Velocities `[B, 3, d, h, w]` in voxels, centred and scaled."""
        return (velocity - self.contract["mean"].to(velocity)) / torch.as_tensor(self.contract["scale"]).to(velocity)

    def _hidden(self, c: Tensor, batch: Mapping[str, Any] | None = None) -> Tensor:
        """Covariates `[B, 8 n]`, some of them, or all of some samples, made unknown."""
        keep = SampleNoise(batch or {}, c, stream=1).uniform(1 + len(self.h.covariates)) >= self.h.covariate_dropout
        return c * (keep[:, :1] & keep[:, 1:]).repeat_interleave(SLOTS, dim=1)

    def guess(
        self, z: Tensor, log_snr: Tensor, c: Tensor | None, drawn: Tensor | None = None, names: Sequence[str] = ()
    ) -> Posterior:
        """The prior's mean of x0 given z and covariates `[B, 8 n]`, and the size of what that leaves; see `effect`.

        With an amplitude a, `x0 = shift + a r`, and r is seen in noise of log-SNR `lambda + 2 log a`.

        Arguments:
            names: of training scans, whose priors are those fitted without them.
        """
        shift, amplitude = torch.zeros_like(z), z.new_ones(len(z))
        if c is not None:
            shift, amplitude = self.effect(c, drawn), self.amplitude(c, drawn)
        a = amplitude.view(-1, 1, 1, 1, 1)
        (alpha, sigma), level = alpha_sigma(log_snr), log_snr + 2 * amplitude.to(log_snr).log()
        alpha, ratio = (x.to(z).view(-1, 1, 1, 1, 1) for x in (alpha, alpha_sigma(level)[1] / sigma))
        rest = ratio * (z - alpha * shift)
        if not names or self._priors is None or not self._priors.others:
            mean, size = self.prior(rest, level)
        else:
            parts = [
                self._priors.without(name, z.device)(r[None], one[None])
                for name, r, one in zip(names, rest, level, strict=True)
            ]
            mean, size = (torch.cat(part) for part in zip(*parts, strict=True))
        return Posterior(a * mean + shift, a * size)

    def _answer(self, z: Tensor, log_snr: Tensor, c: Tensor | None, mean: Tensor | None = None) -> Tensor:
        """The network's output; it sees the prior's mean, at unit size, beside z."""
        if mean is not None:
            z = torch.cat([z, mean / mean.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt().clamp(min=1e-6)], dim=1)
        return self.net(z, log_snr, c)

    def _loss(self, batch: dict[str, Any], t: Tensor, noise: Tensor, training: bool) -> Tensor:
        h = self.h
        x0 = self.normalized(batch["velocity"])
        c = self.encoder.encode(batch["covariates"], self.device) if h.covariates else None
        known = c  # to the prior, which is of what all covariates leave, whatever the network is shown of them
        if training and c is not None:
            c = self._hidden(c, batch)
            known = c if self.rows is None else known
        if h.levels is None:
            log_snr = self.schedule.log_snr(t)
        else:
            log_snr = h.levels[1] + (h.levels[0] - h.levels[1]) * t.double()
        z = diffuse(x0, noise, log_snr)
        names = batch.get("name", ()) if training else ()
        guess = self.guess(z, log_snr, known, names=names) if h.prior_modes else None
        output = self._answer(z, log_snr, c, None if guess is None else guess.mean)
        return self.objective(output, x0, noise, log_snr, guess)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = batch["velocity"]
        t = batch["spread"] if "spread" in batch else torch.rand(len(x), device=x.device)
        loss = self._loss(batch, t, SampleNoise(batch, x).normal(), training=True)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """The denoising loss at eight fixed times with fixed noise."""
        x = batch["velocity"]
        loss = loss_at_fixed_times(lambda t, noise: self._loss(batch, t, noise, training=False), x, 8)
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(x), sync_dist=True)

    def arithmetic(self) -> AbstractContextManager:
        """The running trainer's, else that of `precision`."""
        running = self._trainer is not None
        return self.trainer.precision_plugin.forward_context() if running else super().arithmetic()

    @property
    def arithmetic_name(self) -> str:
        return str(self.trainer.precision).split("-")[0] if self._trainer is not None else super().arithmetic_name

    @cached_property
    def generator(self) -> Generator:  # type: ignore[override]
        """Made when it is first needed."""
        self.check_options()
        if self.template is None and self.data_is_set_up:
            self.template = self.data.template
        return FieldGenerator(self)

    def denoise(self, z: Tensor, log_snr: Tensor, condition: Tensor | None, drawn: Tensor | None = None) -> Tensor:
        """x0 of z, guided where conditioned by `x0_u + w (x0_c - x0_u)` (Ho & Salimans, 2022); see `effect`."""

        def x0(c: Tensor | None) -> Tensor:
            vector = c
            if c is None and self.h.covariates:
                vector = torch.zeros(len(z), SLOTS * len(self.h.covariates), device=z.device)
            if self.h.prior_modes:
                mean, size = self.guess(z, log_snr, vector, drawn)
                if not self.correction:
                    return mean
                return mean + self.correction * size * self._answer(z, log_snr, vector, mean)
            return to_x0(self._answer(z, log_snr, vector), z, log_snr, self.h.prediction, self.h.clip)

        if condition is None or self.guidance == 1:
            return x0(condition)
        free = x0(None)
        return free + self.guidance * (x0(condition) - free)

    def samples(self, indices: range, attempt: int, conditions: Sequence[Mapping[str, Any]]) -> Tensor:
        return self._samples(indices, attempt, conditions, self.sampler, self.steps)

    @torch.no_grad()
    @single_thread()
    def _samples(
        self, indices: Sequence[int], attempt: int, each: Sequence[Mapping[str, Any]], sampler: SamplerName, steps: int
    ) -> Tensor:
        generators = [self.random(k, attempt) for k in indices]
        shape = (3, *self.contract["grid"]["shape"])
        vectors = [v for v in map(self.condition, each) if v is not None]
        condition = torch.cat(vectors) if vectors else None
        drawn = self.drawn(indices, attempt, condition)
        with self.arithmetic():
            x0 = sampler_named(sampler, self.schedule, steps)(
                lambda z, level: self.denoise(z, level, condition, drawn),
                lambda: torch.stack([torch.randn(shape, generator=g) for g in generators]).to(self.device),
            )
        return self.restored(x0.float()).cpu()

    def example(self) -> dict[str, Any] | None:
        """A brain drawn from the present weights in a few steps, for pictures of training."""
        if self.data is None or "mean" not in self.contract:
            return None
        grid = Grid.from_dict(self.contract["grid"])
        steps = self.contract["integration_steps"]
        template = self.data.template.to(grid)
        velocity = self._samples([0], 0, [self.conditions or {}], "dpm++", min(self.steps, 12))
        displacement = integrate(velocity, steps)
        warped = warp(template.image[None], displacement)[0]
        jacobian = log_jacobian(integrate(velocity, steps, inverse=True))[0]
        return {
            "moving": template.image,
            "warped": warped,
            "displacement": displacement[0],
            "log_jacobian": jacobian,
            "grid": grid,
        }
