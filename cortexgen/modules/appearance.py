"""Stage 3: a diffusion model of what a brain's picture has beyond the warped template's."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from cortexgen.atlas.labels import numbered
from cortexgen.atlas.solid import solid
from cortexgen.contracts import Brain
from cortexgen.data.covariates import SLOTS, CovariateEncoder
from cortexgen.data.noise import SampleNoise
from cortexgen.data.style import STYLE
from cortexgen.diffusion import CosineSchedule, Noise, SamplerName, diffuse, sampler_named, to_x0
from cortexgen.generation.appearance import Shape
from cortexgen.generation.cohort import DATASET
from cortexgen.generation.learned import LearnedAppearance
from cortexgen.generation.velocities import numbered_generator
from cortexgen.generation.writer import BrainWriter
from cortexgen.losses import DenoisingLoss, loss_at_fixed_times
from cortexgen.modules.base import StageModule
from cortexgen.nets import AppearanceUNet
from cortexgen.runner.threads import single_thread

LEVELS = (-6.5, 6.5)  # log-SNRs trained at, evenly, and those a sample goes through
GUIDED = 0.0  # log-SNR below which a sample is guided: there it gets its contrast and brightness
OVERLAP = 0.25  # of parts that a volume is worked on in
DARKEST = 1e-3  # of a brain's voxels, which would be background otherwise


class AppearanceModule(StageModule):
    """Learns images of subjects given the template, and its labels, warped to them.

    The state has two channels: what the image differs by from the warped template, in units of its deviation; and the
    brain's mask, -1 outside and 1 inside, so that images end where their masks do. A vector of covariates and the
    image's style (see `data.style`) scales and shifts the network's features.

    Arguments:
        widths: channels of each level, finest first.
        blocks: residual blocks a level.
        patch: the network works on blocks of this many voxels a side.
        label_channels: numbers that a class is embedded in.
        fine: channels a voxel at full resolution.
        covariates: columns of participants.tsv to condition on, beside the style.
        covariate_dropout: share of training samples without any, and of single values hidden.
        lr: learning rate of Adam.
        betas: of Adam.
        warmup_steps: of the learning rate, linear.
        lr_decay: let it fall to a tenth as half a cosine.
        sampler: "dpm++", "ddim" or "ancestral" (a run-time option, like the next).
        steps: network evaluations a sample.
        guidance: weight of covariates and style where a sample gets its contrast, against a sample of any style (Ho &
            Salimans, 2022); 1 is none beyond conditioning.
        style: what is fixed of the style in `predict`, such as `{noise: 0.01}`; the rest is drawn.
        sample_seed: of what `predict` draws.
    """

    stage = "stage 3"
    output_name = DATASET
    writer = BrainWriter

    def __init__(
        self,
        widths: Sequence[int] = (64, 96, 128),
        blocks: int = 1,
        patch: int = 2,
        label_channels: int = 4,
        fine: int = 16,
        classes: int = 18,
        covariates: Sequence[str] = ("age", "sex"),
        covariate_dropout: float = 0.1,
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        warmup_steps: int = 100,
        lr_decay: bool = True,
        sampler: SamplerName = "dpm++",
        steps: int = 10,
        guidance: float = 1.0,
        style: dict[str, float] | None = None,
        sample_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["sampler", "steps", "guidance", "style", "sample_seed"])
        self.sampler, self.steps, self.guidance = sampler, steps, guidance
        self.style, self.sample_seed = style, sample_seed
        vector = SLOTS * (len(covariates) + len(STYLE))
        self.net = AppearanceUNet(2, classes, widths, blocks, patch, label_channels, vector, fine)
        self.schedule = CosineSchedule()
        self.objective = DenoisingLoss("v")

    def setup(self, stage: str) -> None:
        """Take the contract from the data, and on the first fit covariates, styles and the scale of what differs."""
        fresh = not self.contract
        super().setup(stage)
        if stage == "fit" and fresh:
            self.contract["coarse"] = self.data.coarse
            covariates = list(self.h.covariates)
            self.contract["covariates"] = self.data.encoder(covariates).specs
            self.contract["people"] = self.data.people(covariates)
            self.contract["deviation"] = self.data.deviation()

    @property
    def encoder(self) -> CovariateEncoder:
        """Of covariates and style; its numbers live in the contract."""
        return CovariateEncoder(self.contract["covariates"])

    def state(self, image: Tensor, template: Tensor) -> Tensor:
        """`[B, 2, D, H, W]` of images and the template warped to them, `[B, 1, D, H, W]` each."""
        return torch.cat([(image - template) / self.contract["deviation"], 2.0 * (image > 0) - 1], dim=1)

    def image(self, state: Tensor, template: Tensor) -> Tensor:
        """The inverse of `state`, in one piece without holes; 0 outside of the mask."""
        inside = torch.stack([solid(mask > 0) for mask in state[:, 1:]])
        return (template + self.contract["deviation"] * state[:, :1]).clamp(DARKEST, 1) * inside

    def _loss(self, batch: Mapping[str, Any], spread: Tensor, noise: Tensor, training: bool) -> Tensor:
        x0 = self.state(batch["fixed"], batch["moving"])
        c = self.encoder.encode(batch["covariates"], self.device)
        if training:
            keep = SampleNoise(batch, c, stream=1).uniform(1 + c.shape[1] // SLOTS) >= self.h.covariate_dropout
            c = c * (keep[:, :1] & keep[:, 1:]).repeat_interleave(SLOTS, dim=1)
        log_snr = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * spread.double().to(x0.device)
        output = self.net(
            diffuse(x0, noise, log_snr), log_snr, batch["moving"], batch["moving_labels"], batch["place"], c
        )
        return self.objective(output, x0, noise, log_snr)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = batch["fixed"]
        spread = batch["spread"] if "spread" in batch else torch.rand(len(x))
        noise = SampleNoise(batch, x.expand(-1, 2, -1, -1, -1)).normal()
        loss = self._loss(batch, spread, noise, training=True)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(x))
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """The denoising loss at four fixed levels with fixed noise."""
        x = batch["fixed"]
        loss = loss_at_fixed_times(
            lambda t, noise: self._loss(batch, t, noise, training=False), x.expand(-1, 2, -1, -1, -1), 4
        )
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(x), sync_dist=True)

    @property
    def appearance(self) -> LearnedAppearance:
        """These weights, as what gives shapes their images."""
        return LearnedAppearance(self, self.style)

    def describe(self) -> dict[str, Any]:
        """The weights, and what else the brains of `predict` depend on."""
        options = self.appearance.describe() | {"sample_seed": self.sample_seed, "device": self.device.type}
        return {"Weights": self.weights_hash(), "Template": self.contract["template"]["hash"], "Parameters": options}

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[Brain]:
        """A subject's shape, the template warped to it, with an image that is nobody's; nothing if `skip` knows it."""
        index, template, grid = batch["index"], self.data.template, self.data.grid
        if self.skip(index):
            return []
        image, labels = batch["moving"].cpu(), batch["moving_labels"].cpu()

        def random(what: str) -> torch.Generator:
            return numbered_generator(self.sample_seed, index, what)

        still = torch.zeros(3, *grid.shape)
        shape = Shape(image, labels, template.classes, grid, still, 1.0, batch["covariates"], random)
        with single_thread():
            found = self.appearance.render(shape)
        names = dict(zip(template.numbers or range(len(template.classes)), template.classes, strict=True))
        fitted = numbered(found.labels, template.numbers)
        return [Brain(index, found.image, grid, fitted, names, conditions=batch["covariates"], style=found.style)]

    def example(self) -> None:
        """There is no deformation to draw."""
        return None

    def _answer(self, z: Tensor, log_snr: Tensor, given: Sequence[Tensor], c: Tensor, patch: int | None) -> Tensor:
        if patch is None:
            return self.net(z, log_snr, *given, c)
        from monai.inferers import sliding_window_inference  # takes a second

        def part(x: Tensor) -> Tensor:
            state, template, labels, place = x.split((2, 1, 1, 3), dim=1)
            return self.net(state, log_snr, template, labels.long(), place, c)

        size = [min(patch, n) for n in z.shape[2:]]
        x = torch.cat([z, *given], dim=1)
        return cast(Tensor, sliding_window_inference(x, size, 1, part, OVERLAP, "gaussian"))

    @torch.no_grad()
    def render(
        self,
        template: Tensor,
        labels: Tensor,
        place: Tensor,
        conditions: Mapping[str, Any],
        noise: Noise,
        patch: int | None = None,
    ) -> Tensor:
        """An image of the shape that the warped template has.

        Arguments:
            template, labels: warped, `[1, D, H, W]` each.
            place: of the voxels, `[3, D, H, W]`.
            conditions: covariates and style, by name.
            noise: draws standard normal numbers, `[2, D, H, W]`: those that the image is made of, and for some samplers
                more at each step.
            patch: work on overlapping parts of so many voxels a side in each step, instead of the whole.

        Returns:
            `[1, D, H, W]` in [0, 1], 0 outside the brain.
        """
        c = self.encoder.encode([conditions], self.device)
        given = [x[None].to(self.device) for x in (template, labels, place)]

        def denoise(z: Tensor, log_snr: Tensor) -> Tensor:
            answer = self._answer(z, log_snr, given, c, patch)
            if self.guidance != 1 and float(log_snr[0]) < GUIDED:
                free = self._answer(z, log_snr, given, torch.zeros_like(c), patch)
                answer = free + self.guidance * (answer - free)
            return to_x0(answer, z, log_snr, "v")

        sampler = sampler_named(self.sampler, self.schedule, self.steps, LEVELS)
        state = sampler(denoise, lambda: noise()[None].to(self.device))
        return self.image(state.float(), given[0])[0].cpu()
