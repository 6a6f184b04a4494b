"""cDPM: a volume slice by slice, each given others, by 2D diffusion."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cortexgen.data.noise import SampleNoise
from cortexgen.diffusion import CosineSchedule, LinearBetaSchedule, SamplerName, diffuse, sampler_named, to_x0
from cortexgen.errors import UserError
from cortexgen.generation.velocities import Carried
from cortexgen.io import Grid
from cortexgen.losses import loss_at_fixed_times
from cortexgen.modules.baselines.base import RUN_TIME, BaselineModule, scaled
from cortexgen.nets.baselines.cdpm import SliceUNet


def slices_to_learn(count: int, most: int, random: torch.Generator) -> tuple[list[int], list[bool]]:
    """Numbers of `most` slices of `count`, rising, and which of them are observed.

    They come in evenly spaced groups, whose spacing is log-uniform; the first is not observed, each other one with
    p = 0.5 (Harvey et al., NeurIPS 2022).
    """

    def uniform() -> float:
        return float(torch.rand((), generator=random))

    most = min(most, count)
    chosen: dict[int, bool] = {}
    while len(chosen) < most:
        size = 1 + int(uniform() * (most - len(chosen)))
        spacing = math.exp(uniform() * math.log((count - 1) / (size - 1))) if size > 1 else 1.0
        start = uniform() * (count - (size - 1) * spacing)
        observed = bool(chosen) and uniform() < 0.5
        for place in (min(int(start + i * spacing), count - 1) for i in range(size)):
            chosen.setdefault(place, observed)
    places = sorted(chosen)
    return places, [chosen[place] for place in places]


def slices_to_draw(count: int, most: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Chunks of at most `most` slices of `count`, from the first on: which are observed, and which are drawn.

    After the first chunk half of the slices are those before, which are drawn by then.
    """
    yield (), range(min(most, count))
    new = max(1, most // 2)
    for start in range(most, count, new):
        yield range(start - (most - new), start), range(start, min(start + new, count))


class CDPM(BaselineModule):
    """Diffusion of sets of axial slices, given others (Peng et al., "Generating realistic brain MRIs", MICCAI 2023).

    A 2D U-Net predicts the noise in some slices in [-1, 1], beside clean ones; a volume is drawn from below in chunks,
    each given the slices before. Betas rise linearly from 1e-4 to 0.02 in 1000 steps. As in the published code only
    the middle of the network attends. What is not published: each slice's number in the volume is embedded with the
    time, without which a first chunk could be of any place.

    Arguments:
        scale: of the numbers of channels; 1 is published.
        width: channels of the finest level.
        multipliers: of `width`, a level each.
        blocks: residual blocks a level.
        slices: at a time, observed ones among them.
        lr: learning rate of Adam.
        sampler: "ancestral" (of second order; published: DDPM's), "ddim" or "dpm++" (a run-time option, as those that
            follow; this one and the next are kept in the checkpoint).
        steps: of each chunk, 1000 as published, evenly respaced if fewer.
        num_samples: how many brains `predict` writes.
        sample_seed: sample k depends on this and k alone.
    """

    stage = "the baseline CDPM"
    run_options = ("sampler", "steps")
    sampler, steps = Carried("ancestral"), Carried(1000)

    def __init__(
        self,
        scale: float = 1.0,
        width: int = 128,
        multipliers: Sequence[int] = (1, 1, 2, 3, 4),
        blocks: int = 2,
        slices: int = 20,
        lr: float = 1e-4,
        sampler: SamplerName | None = None,
        steps: int | None = None,
        num_samples: int = 12,
        sample_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=[*RUN_TIME, "sampler", "steps"])
        self.sampler, self.steps = sampler, steps
        self.num_samples, self.sample_seed = num_samples, sample_seed
        self.net = SliceUNet(scaled([width], scale)[0], multipliers, blocks)
        self.schedule = LinearBetaSchedule(1e-4, 0.02, 1000)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.h.lr)

    def _chosen(self, images: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Slices `[B, S, H, W]` of images `[B, 1, D, H, W]`, their numbers, and which are observed, `[B, S]`."""
        count = images.shape[2]
        sets = [slices_to_learn(count, self.h.slices, torch.Generator().manual_seed(seed)) for seed in seeds]
        places, observed = (torch.tensor(part, device=images.device) for part in zip(*sets, strict=True))
        slices = torch.stack([volume[0, here] for volume, here in zip(images, places, strict=True)])
        return 2 * slices - 1, places, observed

    def _loss(self, slices: Tensor, places: Tensor, observed: Tensor, spread: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the noise in the slices that aren't observed, at times in [0, 1)."""
        t = 1 + (spread * self.schedule.steps).long().to(slices.device)
        given = observed[:, :, None, None]
        z = torch.where(given, slices, diffuse(slices, noise, self.schedule.log_snr(t)))
        error = (self.net(z, observed, places, t) - noise).square().mean(dim=(2, 3))
        unseen = (~observed).float()
        return ((error * unseen).sum(dim=1) / unseen.sum(dim=1)).mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = batch["image"]
        seeds = batch["seed"] if "seed" in batch else torch.randint(2**62, (len(x),))
        chosen = self._chosen(x, [seed + 1 for seed in seeds.tolist()])
        spread = batch["spread"] if "spread" in batch else torch.rand(len(x))
        loss = self.checked(self._loss(*chosen, spread, SampleNoise(batch, chosen[0]).normal()))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """The denoising loss of a fixed set of slices at four fixed times with fixed noise."""
        chosen = self._chosen(batch["image"], [0] * len(batch["image"]))
        loss = loss_at_fixed_times(lambda t, noise: self._loss(*chosen, t, noise), chosen[0], 4)
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(chosen[0]), sync_dist=True)

    def inpaint(self, slices: Tensor, places: Tensor, observed: Tensor, random: torch.Generator) -> Tensor:
        """Slices `[1, S, H, W]` in [-1, 1], of which those that aren't observed, `[1, S]`, are drawn.

        Raises:
            UserError: for more steps than there are.
        """
        if not 1 <= self.steps <= self.schedule.steps:
            raise UserError(f"steps: expected 1 to {self.schedule.steps}, got {self.steps}")
        times = torch.linspace(self.schedule.steps, 1, self.steps, dtype=torch.float64).round().long()
        sampler = sampler_named(self.sampler, CosineSchedule(), self.steps)
        sampler.levels = self.schedule.log_snr(times)
        step_at = dict(zip(sampler.levels.tolist(), times.tolist(), strict=True))
        given = observed[:, :, None, None]

        def denoise(z: Tensor, log_snr: Tensor) -> Tensor:
            t = torch.full((len(z),), step_at[float(log_snr[0])], device=z.device)
            noise = self.net(torch.where(given, slices, z), observed, places, t)
            return torch.where(given, slices, to_x0(noise, z, log_snr, "eps", clip=1.0))

        return sampler(denoise, lambda: torch.randn(slices.shape, generator=random).to(slices.device))

    def sample(self, random: torch.Generator, conditions: Mapping[str, Any]) -> Tensor:
        """An image `[1, D, H, W]`, drawn chunk by chunk; see `slices_to_draw`."""
        depth, height, width = Grid.from_dict(self.contract["grid"]).shape
        volume = torch.zeros(1, depth, height, width, device=self.device)
        for known, new in slices_to_draw(depth, self.h.slices):
            places = torch.tensor([[*known, *new]], device=self.device)
            observed = torch.tensor([[True] * len(known) + [False] * len(new)], device=self.device)
            volume[:, places[0]] = self.inpaint(volume[:, places[0]], places, observed, random)
        return (volume + 1) / 2
