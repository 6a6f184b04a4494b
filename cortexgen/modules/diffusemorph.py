"""Stage 1: registration by a denoising network and a velocity head."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from cortexgen.contracts import Solved, Synthesis
from cortexgen.data.noise import SampleNoise
from cortexgen.data.patches import in_patches
from cortexgen.diffusion import LinearBetaSchedule, diffuse, synthesize
from cortexgen.errors import UserError
from cortexgen.losses import Correlation, RegistrationLoss, ncc_force
from cortexgen.modules.registration import RegistrationModule
from cortexgen.nets import Denoised, DenoisingUNet, VelocityHead
from cortexgen.registration.measures import Aligned, batch_measures
from cortexgen.registration.refinement import Refinement
from cortexgen.spatial import coarse_shape, from_coarse, integrate, log_jacobian, mirrored, warp

RUN_TIME = ["refine", "refine_lr", "refine_smoothness", "refine_intensity"]
RUN_TIME += ["extra_passes", "mirror", "frames", "synthesis", "nearest_labels", "patch"]
Seen = Literal["eps", "eps+fixed", "features+fixed", "fixed"]


class DiffuseMorphModule(RegistrationModule):
    """DiffuseMorph (Kim et al., ECCV 2022) with a stationary velocity.

    G predicts the noise in a noised fixed image from (moving, fixed, x_t); M turns (moving, eps) into a velocity. The
    loss is `‖G - eps‖² + lambda (-LNCC(moving∘φ, fixed) + lambda_phi ‖∇v‖²)`. Registration is one pass at t = 0 with
    x_0 = fixed. Images are `[B, 1, D, H, W]` with intensities in [0, 1].

    Arguments:
        code: what the head sees beside the moving image: the predicted noise (the paper), the fixed image too, the
            features that the noise is read from and the fixed image, or the fixed image alone (VoxelMorph, no
            denoising network).
        passes: how often the head is asked, each time with the moving image warped by the velocity so far, and with
            that velocity; its answers add up. 1 is the paper.
        force: let the head see the gradient of the local cross-correlation by the displacement; false is the paper.
        clean: share of training samples that use G as registration does, at t = 0 with nothing to denoise; 0 is the
            paper.
        denoiser_width: channels of G's finest level.
        denoiser_multipliers: of that width, a level each.
        denoiser_patch: G works on blocks of this many voxels a side; features need that of `field_downsample`.
        encoder: channels of M's levels.
        decoder: channels of M on the way up.
        head_refine: channels of M's last convolutions.
        field_downsample: the velocity lives on every 1st, 2nd or 4th voxel.
        integration_steps: of `integrate`; 0 makes the head's output a displacement, whose inverse is solved for.
        timesteps: T of the noise schedule.
        beta_start: of the linear schedule.
        beta_end: of the linear schedule.
        similarity_weight: lambda.
        smoothness_weight: lambda_phi.
        folding_weight: of the penalty on Jacobian determinants below 0.2.
        foreground: average the LNCC over the brain instead of the whole grid.
        symmetric: compare half of the training samples in the moving image's space.
        ncc_window: side of the LNCC windows in voxels.
        ncc_floor: variance added to those of the windows; about that of the images' noise lets tissues speak, not it.
        lr: learning rate of Adam.
        betas: of Adam.
        warmup_steps: of the learning rate, linear.
        lr_decay: let it fall to a tenth as half a cosine.
        extra_passes: of registration beyond `passes`, if that is more than 1 (this and what follows: run-time options).
        mirror: average the network's answer with that to the mirrored pair, mirrored back; the grid must be symmetric
            about x = 0.
        refine: gradient steps on each pair's velocity after the network's answer, on every voxel (`Refinement`).
        refine_lr: of those steps, in voxels.
        refine_smoothness: lambda_phi in those steps.
        refine_intensity: weight of the squared difference of intensities in those steps.
        frames: predict also writes so many frames of the continuous deformation exp(eta v), and an animated picture.
        synthesis: predict also writes what so many steps of reverse diffusion make of the noised moving image
            (Algorithm 2), and a picture of the way.
        nearest_labels: take warped labels from the nearest voxel instead of the largest interpolated indicator.
        patch: put the network's answer together from those to parts of this size (D, H, W), which overlap by half, for
            images too large to be worked on whole; multiples of twice its coarsest voxel.
    """

    stage, run_options = "stage 1", RUN_TIME

    def __init__(
        self,
        code: Seen = "eps",
        passes: int = 1,
        force: bool = False,
        clean: float = 0.0,
        denoiser_width: int = 8,
        denoiser_multipliers: Sequence[int] = (1, 2, 4, 4),
        denoiser_patch: int = 1,
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32),
        head_refine: Sequence[int] = (16, 16),
        field_downsample: int = 2,
        integration_steps: int = 7,
        timesteps: int = 2000,
        beta_start: float = 1e-6,
        beta_end: float = 1e-2,
        similarity_weight: float = 10.0,
        smoothness_weight: float = 1.0,
        folding_weight: float = 0.0,
        foreground: bool = False,
        symmetric: bool = False,
        ncc_window: int = 9,
        ncc_floor: float = 1e-4,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_steps: int = 0,
        lr_decay: bool = False,
        extra_passes: int = 2,
        mirror: bool = False,
        refine: int = 0,
        refine_lr: float = 0.22,
        refine_smoothness: float = 6.0,
        refine_intensity: float = 0.0,
        frames: int = 0,
        synthesis: int = 0,
        nearest_labels: bool = False,
        patch: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=RUN_TIME)
        self.refine, self.refine_lr, self.refine_smoothness = refine, refine_lr, refine_smoothness
        self.refine_intensity, self.extra_passes, self.mirror = refine_intensity, extra_passes, mirror
        self.frames, self.synthesis, self.nearest_labels, self.patch = frames, synthesis, nearest_labels, patch
        self.schedule = LinearBetaSchedule(beta_start, beta_end, timesteps)
        self.denoiser = None
        if code != "fixed":
            self.denoiser = DenoisingUNet(3, denoiser_width, denoiser_multipliers, denoiser_patch)
        images = 1 + ("eps" in code) + ("fixed" in code) + (3 if force else 0)
        coarse = denoiser_width * denoiser_multipliers[0] * ("features" in code) + (3 if passes > 1 else 0)
        self.head = VelocityHead(images, encoder, decoder, head_refine, field_downsample, coarse)
        if "features" in code and denoiser_patch != field_downsample:
            raise ValueError(f"code: {code} needs denoiser_patch = field_downsample, got {denoiser_patch}")
        self.objective = RegistrationLoss(
            ncc_window, smoothness_weight, folding_weight, foreground, integration_steps, field_downsample, ncc_floor
        )

    @property
    def field_downsample(self) -> int:
        return 1 if self.refine else self.h.field_downsample

    def denoise(self, moving: Tensor, fixed: Tensor, x_t: Tensor, t: Tensor) -> Denoised:
        """G's estimate of the noise in x_t, on the scale [-1, 1], at the steps t `[B]`.

        Raises:
            UserError: if the module was made without the denoising network.
        """
        if self.denoiser is None:
            raise UserError("code: fixed has no denoising network")
        features = self.denoiser.features(torch.cat([2 * moving - 1, 2 * fixed - 1, x_t], dim=1), t)
        return Denoised(self.denoiser.noise(features, fixed.shape[2:]), features)

    def velocity(self, moving: Tensor, fixed: Tensor, code: Denoised | None = None, eta: float = 1.0) -> Tensor:
        """M's velocity `[B, 3, d, h, w]`; without a code G is asked at t = 0. The code is scaled by `eta` first."""
        if code is not None or self.training or not self.patch:
            return self._velocity(moving, fixed, code, eta)
        return in_patches(partial(self._velocity, eta=eta), (moving, fixed), self.patch, self.h.field_downsample)

    def _velocity(self, moving: Tensor, fixed: Tensor, code: Denoised | None = None, eta: float = 1.0) -> Tensor:
        h = self.h
        if code is None and self.denoiser is not None:
            zero = torch.zeros(fixed.shape[0], dtype=torch.long, device=fixed.device)
            code = self.denoise(moving, fixed, 2 * fixed - 1, zero)
        fine = [fixed] if "fixed" in h.code else []
        coarse = []
        if code is not None and "features" in h.code:
            coarse = [eta * code.features]
        elif code is not None:
            fine = [eta * code.noise, *fine]
        velocity = fixed.new_zeros(len(fixed), 3, *coarse_shape(fixed.shape[2:], h.field_downsample))
        warped, correlation = moving, Correlation(fixed.float(), h.ncc_window) if h.force else None
        for k in range(h.passes + (self.extra_passes if h.passes > 1 and not self.training else 0)):
            before = velocity.detach()
            if k:
                warped = warp(moving, self.displacement(before, fixed.shape[2:]))
            force = [ncc_force(warped, correlation)] if correlation else []
            state = [*coarse, before] if h.passes > 1 else coarse
            images = torch.cat([warped, *fine, *force], dim=1)
            velocity = velocity + self.head(images, torch.cat(state, dim=1) if state else None)
        return eta * velocity if code is None else velocity

    def displacement(self, velocity: Tensor, shape: Sequence[int], inverse: bool = False) -> Tensor:
        """`exp(v) - id` on the images' grid, `[B, 3, *shape]` in voxels, or its inverse."""
        factor = 1 if velocity.shape[2:] == torch.Size(shape) else self.h.field_downsample
        return from_coarse(integrate(velocity, self.h.integration_steps, inverse), shape, factor)

    @torch.no_grad()
    def solve(self, moving: Tensor, fixed: Tensor, refine: int | None = None, eta: float = 1.0) -> Solved:
        """The velocity of a pair, and the number of refinement steps; refined, it is on the images' own grid."""
        velocity = self.velocity(moving, fixed, eta=eta).float()
        if self.mirror:
            velocity = (velocity + mirrored(self.velocity(moving.flip(-1), fixed.flip(-1), eta=eta).float())) / 2
        steps = self.refine if refine is None else refine
        if not steps:
            return Solved(velocity)
        h, weights = self.h, (self.refine_lr, self.refine_smoothness, self.refine_intensity)
        refine_pair = Refinement(steps, *weights, h.ncc_window, h.foreground, h.symmetric, h.integration_steps)
        return Solved(refine_pair(from_coarse(velocity, fixed.shape[2:], h.field_downsample), moving, fixed), steps)

    @torch.no_grad()
    def register(self, moving: Tensor, fixed: Tensor, eta: float = 1.0, refine: int | None = None) -> Aligned:
        """Register a pair in one pass.

        Arguments:
            moving, fixed: `[B, 1, D, H, W]` on one grid, in [0, 1].
            eta: how far along the continuous deformation (Algorithm 1), 1 is all the way.
            refine: gradient steps on the velocity afterwards; the module's own number unless given.
        """
        return self._aligned(moving, self.solve(moving, fixed, refine, eta).field)

    def _aligned(self, moving: Tensor, velocity: Tensor) -> Aligned:
        displacement = self.displacement(velocity, moving.shape[2:])
        inverse = self.displacement(velocity, moving.shape[2:], inverse=True)
        return Aligned(velocity, displacement, inverse, warp(moving, displacement))

    @torch.no_grad()
    def continuous(
        self, moving: Tensor, fixed: Tensor, etas: Sequence[float], path: Literal["code", "velocity"] = "code"
    ) -> Iterator[Aligned]:
        """Algorithm 1: deformations between the moving and the fixed image.

        Arguments:
            moving, fixed: `[B, 1, D, H, W]` on one grid, in [0, 1].
            etas: each in [0, 1].
            path: "code" scales G's answer by η before the head sees it (the paper); "velocity" follows exp(ηv), which
                starts at the identity whatever else the head sees.
        """
        for eta in etas:
            if path == "code":
                yield self.register(moving, fixed, eta=eta, refine=0)
            else:
                yield self._aligned(moving, eta * self.solve(moving, fixed).field)

    @torch.no_grad()
    def synthesize(
        self,
        moving: Tensor,
        fixed: Tensor,
        steps: int = 200,
        generator: torch.Generator | None = None,
        states: list[tuple[int, Tensor]] | None = None,
    ) -> Tensor:
        """Algorithm 2: reverse diffusion from the noised moving image to the fixed one, `[B, 1, D, H, W]` in [0, 1]."""

        def predict(x: Tensor, t: int) -> Tensor:
            return self.denoise(moving, fixed, x, torch.full((len(x),), t, device=x.device)).noise.float()

        return synthesize(self.schedule, predict, moving, steps, generator, states)

    def _denoising(
        self, moving: Tensor, fixed: Tensor, t: Tensor, clean: Tensor, noise: Tensor
    ) -> tuple[Denoised, Tensor]:
        """G's answer at the times `t` of T, in [0, 1), or at 0 to the `clean` samples' own image; and its loss.

        The clean ones' loss counts zero, so that every parameter has a gradient in every step, as DDP expects.
        """
        step = 1 + (t * self.schedule.steps).long().clamp(max=self.schedule.steps - 1)
        image = 2 * fixed - 1
        x_t = torch.where(clean, image, diffuse(image, noise, self.schedule.log_snr(step)))
        code = self.denoise(moving, fixed, x_t, torch.where(clean.flatten(), 0, step))
        return code, (~clean * (code.noise.float() - noise).square()).mean()

    def _losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        h, moving, fixed = self.h, batch["moving"], batch["fixed"]
        noise = SampleNoise(batch, fixed)
        t, clean, other = noise.uniform(3, 1, 1, 1, 1).unbind(1)
        code, diffusion = None, fixed.new_zeros(())
        if self.denoiser is not None:
            code, diffusion = self._denoising(moving, fixed, t.flatten(), clean < h.clean, noise.normal())
        velocity = self.velocity(moving, fixed, code)
        if h.symmetric:  # half of the samples the other way round
            other = other < 0.5
            moving, fixed = torch.where(other, fixed, moving), torch.where(other, moving, fixed)
            back = -velocity if h.integration_steps else integrate(velocity, 0, inverse=True)
            velocity = torch.where(other, back, velocity)
        terms = self.objective.terms(moving, fixed, velocity)
        loss = diffusion + h.similarity_weight * self.objective.total(terms)
        return {"loss": loss, "diffusion": diffusion, **terms}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self._losses(batch)
        self.log_dict({f"train/{k}": v for k, v in losses.items()}, batch_size=len(batch["fixed"]))
        self.log("ncc", -losses["similarity"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        moving, fixed = batch["moving"], batch["fixed"]
        refine = 0 if self.trainer.state.fn == "fit" else self.refine
        result = self.register(moving, fixed, refine=refine)
        classes = len(self.contract["template"]["classes"])
        metrics = batch_measures(result, batch, self.h.ncc_window, classes)
        shown = {"dice", "ncc"}
        for key, value in metrics.items():
            self.log(f"{stage}/{key}", value, prog_bar=key in shown, batch_size=len(fixed), sync_dist=True)

    def example(self) -> dict[str, Any] | None:
        """The first validation pair, registered: images and fields without batch axis, for pictures of training."""
        if self.data is None or not self.data.side("val"):
            return None
        scan = self.data.side("val")[0]
        moving = self.data.template.image[None].to(self.device)
        fixed = self.data.image_of(scan)[None].to(self.device)
        result = self.register(moving, fixed, refine=0)
        volumes = {"moving": moving, "fixed": fixed, "warped": result.warped, "displacement": result.displacement}
        volumes["log_jacobian"] = log_jacobian(result.inverse)
        return {k: v[0].float().cpu() for k, v in volumes.items()} | {"grid": self.data.grid}

    def check_mirror(self) -> None:
        """See that mirroring maps the grid and the velocity's onto themselves.

        Raises:
            UserError: if it doesn't.
        """
        grid = self.frame.grid
        if self.mirror and not (grid.is_symmetric() and (grid.shape[2] - 1) % self.h.field_downsample == 0):
            raise UserError(f"mirror: the grid must be symmetric about x = 0, with the velocity's; it is {grid}")

    def on_predict_start(self) -> None:
        self.check_mirror()

    def synthesis_of(self, moving: Tensor, fixed: Tensor) -> Synthesis | None:
        """`synthesize` a pair `[1, 1, D, H, W]` with fixed noise, for a picture of the way."""
        if not self.synthesis:
            return None
        states: list[tuple[int, Tensor]] = []
        out = self.synthesize(moving, fixed, self.synthesis, torch.Generator().manual_seed(0), states)
        moving, fixed, result = (image[0, 0].float().cpu() for image in (moving, fixed, out))
        return Synthesis(moving, fixed, [(t, x[0, 0].float().cpu()) for t, x in states], result, self.frame.grid)
