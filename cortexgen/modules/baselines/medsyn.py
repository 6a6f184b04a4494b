"""MedSyn: a volume at half the resolution, then the rest of it, by diffusion twice."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cortexgen.data.covariates import SLOTS
from cortexgen.data.noise import SampleNoise
from cortexgen.diffusion import CosineSchedule, diffuse, sampler_named
from cortexgen.errors import UserError
from cortexgen.generation.velocities import Carried
from cortexgen.io import Grid
from cortexgen.losses import DenoisingLoss, loss_at_fixed_times
from cortexgen.modules.baselines.base import RUN_TIME, BaselineModule, scaled
from cortexgen.nets.baselines.medsyn import MedSynUNet

HIDDEN = 1e-4  # least alpha² and sigma² of the schedule
STEPS = 50 / 30  # of the low resolution, for each of the full one


class MedSyn(BaselineModule):
    """Low resolution given covariates, then full resolution given low resolution (Xu et al., TMI 2024).

    Both networks predict the clean image, in [-1, 1], from one in noise; the schedule is the cosine one, cut where
    alpha² is 1e-4 from 0 and 1. They are trained side by side, on whole images. The paper's text is covariates here.
    What is not published: the grid is halved instead of 64³ voxels wide, where 256³ are asked for; heads of attention.

    Arguments:
        scale: of the numbers of channels; 1 is published.
        width: channels of the low resolution's finest level.
        fine_width: of the full one's.
        multipliers: of both, a level each.
        middle: times that the middle of the low resolution's network attends.
        covariates: columns of participants.tsv to condition on.
        covariate_dropout: share of training samples without any.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        guidance: weight of the covariates against a sample of any (Ho & Salimans, 2022); 1 is none beyond conditioning
            (a run-time option, as those that follow).
        steps: of DDIM at low resolution, 50 unless given; the full one gets three for each five of them.
        conditions: covariates to ask for, such as `{age: 50}`; those of a training subject unless given.
        num_samples: how many brains `predict` writes.
        sample_seed: sample k depends on this and k alone.
    """

    stage = "the baseline MedSyn"
    run_options = ("guidance", "steps")
    guidance, steps = Carried(2.0), Carried(50)

    def __init__(
        self,
        scale: float = 1.0,
        width: int = 160,
        fine_width: int = 56,
        multipliers: Sequence[int] = (1, 2, 4, 8),
        middle: int = 4,
        covariates: Sequence[str] = (),
        covariate_dropout: float = 0.1,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        guidance: float | None = None,
        steps: int | None = None,
        conditions: dict[str, float | str] | None = None,
        num_samples: int = 12,
        sample_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=[*RUN_TIME, "guidance", "steps"])
        self.guidance, self.steps, self.conditions = guidance, steps, conditions
        self.num_samples, self.sample_seed = num_samples, sample_seed
        width, fine_width = scaled((width, fine_width), scale)
        self.coarse = MedSynUNet(1, width, multipliers, middle, len(covariates), SLOTS)
        self.fine = MedSynUNet(2, fine_width, multipliers, 1)
        limit = float(torch.logit(torch.tensor(1 - HIDDEN, dtype=torch.float64)))
        self.schedule = CosineSchedule(limit, -limit)
        self.objective = DenoisingLoss("x0")

    @staticmethod
    def halved(image: Tensor) -> Tensor:
        """Means of 2 x 2 x 2 voxels, `[B, 1, D, H, W]` to half of that, rounded up."""
        return F.avg_pool3d(image, 2, ceil_mode=True, count_include_pad=False)

    @staticmethod
    def enlarged(coarse: Tensor, shape: Sequence[int]) -> Tensor:
        """The voxels of `halved`, linearly interpolated, as an image `[B, 1, *shape]`."""
        doubled = F.interpolate(coarse, scale_factor=2, mode="trilinear", align_corners=False)
        d, h, w = shape
        return doubled[:, :, :d, :h, :w]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW of both networks."""
        return torch.optim.AdamW(self.parameters(), lr=self.h.lr, weight_decay=self.h.weight_decay)

    def _coarse_loss(self, x0: Tensor, t: Tensor, noise: Tensor, c: Tensor | None) -> Tensor:
        log_snr = self.schedule.log_snr(t)
        return self.objective(self.coarse(diffuse(x0, noise, log_snr), log_snr, c), x0, noise, log_snr)

    def _fine_loss(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        log_snr, known = self.schedule.log_snr(t), self.enlarged(self.halved(x0), x0.shape[2:])
        answer = self.fine(torch.cat([diffuse(x0, noise, log_snr), known], dim=1), log_snr)
        return self.objective(answer, x0, noise, log_snr)

    def _vector(self, rows: Sequence[Mapping[str, Any]]) -> Tensor | None:
        return self.encoder.encode(rows, self.device) if self.covariates else None

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The sum of both networks' losses, at times of their own."""
        x0, c = 2 * batch["image"] - 1, self._vector(batch["covariates"])
        draws = SampleNoise(batch, x0, stream=1).uniform(2)
        t = batch["spread"] if "spread" in batch else draws[:, 0]
        if c is not None:
            c = c * (draws[:, 1:] >= self.h.covariate_dropout)
        half = self.halved(x0)
        coarse = self._coarse_loss(half, t, SampleNoise(batch, half, stream=2).normal(), c)
        fine = self._fine_loss(x0, (t + 0.5) % 1, SampleNoise(batch, x0).normal())
        loss = self.checked(coarse + fine)
        self.log_dict({"train/coarse": coarse, "train/fine": fine}, batch_size=len(x0))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x0))
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """Both denoising losses at four fixed times with fixed noise."""
        x0, c = 2 * batch["image"] - 1, self._vector(batch["covariates"])
        coarse = loss_at_fixed_times(lambda t, noise: self._coarse_loss(half, t, noise, c), half := self.halved(x0), 4)
        fine = loss_at_fixed_times(lambda t, noise: self._fine_loss(x0, t, noise), x0, 4)
        measured = {"loss": coarse + fine, "coarse": coarse, "fine": fine}
        named = {f"{stage}/{name}": value for name, value in measured.items()}
        self.log_dict(named, batch_size=len(x0), sync_dist=True)

    def _guided(self, z: Tensor, log_snr: Tensor, c: Tensor | None) -> Tensor:
        """x0 at low resolution, `x0_u + w (x0_c - x0_u)` where conditioned."""
        if c is None:
            return self.coarse(z, log_snr)
        if self.guidance == 1 or not c.any():
            return self.coarse(z, log_snr, c)
        given, free = self.coarse(torch.cat([z, z]), log_snr.repeat(2), torch.cat([c, torch.zeros_like(c)])).chunk(2)
        return free + self.guidance * (given - free)

    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        """An image `[1, D, H, W]`: DDIM at half the resolution, and at all of it given that.

        Raises:
            UserError: for less than one step.
        """
        if self.steps < 1:
            raise UserError(f"steps: expected 1 or more, got {self.steps}")
        shape, c = Grid.from_dict(self.contract["grid"]).shape, self._vector([conditions])

        def drawn(denoise: Any, size: Sequence[int], steps: float) -> Tensor:
            limits = self.schedule.log_snr_min, self.schedule.log_snr_max
            sampler = sampler_named("ddim", self.schedule, max(1, round(steps)), limits)
            return sampler(denoise, lambda: torch.randn((1, 1, *size), generator=random).to(self.device))

        half = drawn(lambda z, level: self._guided(z, level, c).clamp(-1, 1), [-(-n // 2) for n in shape], self.steps)
        known = self.enlarged(half, shape)

        def denoise(z: Tensor, log_snr: Tensor) -> Tensor:
            return self.fine(torch.cat([z, known], dim=1), log_snr).clamp(-1, 1)

        return (drawn(denoise, shape, self.steps / STEPS)[0] + 1) / 2
