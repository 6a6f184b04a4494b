"""Stage 1: registration by a denoising network and a velocity head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cortexgen.diffusion import LinearBetaSchedule, diffuse
from cortexgen.errors import UserError
from cortexgen.io.bids import Row
from cortexgen.losses import gradient_energy, local_ncc, ncc_force
from cortexgen.metrics import dice
from cortexgen.modules.base import StageModule
from cortexgen.modules.registration_writer import RegistrationWriter
from cortexgen.nets import DenoisingUNet, VelocityHead
from cortexgen.spatial import folded, from_coarse, identity, integrate, log_jacobian, warp, warp_labels

Code = Literal["eps", "eps+fixed", "fixed"]


@dataclass(frozen=True)
class Registration:
    """What registering a pair gives, all on the images' grid but `velocity`.

    Attributes:
        velocity: `[B, 3, d, h, w]` in voxels of its (coarser) grid.
        displacement: u, `[B, 3, D, H, W]` in voxels: `warped(p) = moving(p + u(p))`.
        inverse: the displacement of exp(-v).
        warped: `[B, 1, D, H, W]`.
    """

    velocity: Tensor
    displacement: Tensor
    inverse: Tensor
    warped: Tensor


class DiffuseMorphModule(StageModule):
    """DiffuseMorph (Kim et al., ECCV 2022) with a stationary velocity.

    G predicts the noise in a noised fixed image from (moving, fixed, x_t); M turns (moving, eps) into a velocity. The
    loss is `‖G - eps‖² + lambda (-LNCC(moving∘φ, fixed) + lambda_phi ‖∇v‖²)`. Registration is one pass at t = 0 with
    x_0 = fixed. Images are `[B, 1, D, H, W]` with intensities in [0, 1].

    Arguments:
        code: what the head sees beside the moving image: the predicted noise (the paper), the fixed image too, or the
            fixed image alone (VoxelMorph, no denoising network).
        passes: how often the head is asked, each time with the moving image warped by the velocity so far; the
            velocities add up. 1 is the paper.
        force: let the head see the gradient of the local cross-correlation by the displacement; false is the paper.
        denoiser_width: channels of G's finest level.
        denoiser_multipliers: of that width, a level each.
        encoder: channels of M's levels.
        decoder: channels of M on the way up.
        field_downsample: the velocity lives on every 1st, 2nd or 4th voxel.
        integration_steps: squarings; 0 makes the head's output a displacement.
        timesteps: T of the noise schedule.
        beta_start: of the linear schedule.
        beta_end: of the linear schedule.
        similarity_weight: lambda.
        smoothness_weight: lambda_phi.
        ncc_window: side of the LNCC windows in voxels.
        lr: learning rate of Adam.
        betas: of Adam.
        warmup_steps: of the learning rate, linear.
        lr_decay: let it fall to a tenth as half a cosine.
        refine: gradient steps on each pair's velocity after the network's answer (a run-time option).
        refine_lr: of those steps, in voxels (a run-time option).
    """

    def __init__(
        self,
        code: Code = "eps",
        passes: int = 1,
        force: bool = False,
        denoiser_width: int = 8,
        denoiser_multipliers: Sequence[int] = (1, 2, 4, 4),
        encoder: Sequence[int] = (16, 32, 32, 32),
        decoder: Sequence[int] = (32, 32, 32, 32),
        field_downsample: int = 2,
        integration_steps: int = 7,
        timesteps: int = 2000,
        beta_start: float = 1e-6,
        beta_end: float = 1e-2,
        similarity_weight: float = 10.0,
        smoothness_weight: float = 1.0,
        ncc_window: int = 9,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        warmup_steps: int = 0,
        lr_decay: bool = False,
        refine: int = 0,
        refine_lr: float = 0.1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["refine", "refine_lr"])
        self.refine, self.refine_lr = refine, refine_lr
        self.schedule = LinearBetaSchedule(beta_start, beta_end, timesteps)
        self.denoiser = None if code == "fixed" else DenoisingUNet(3, denoiser_width, denoiser_multipliers)
        channels = 1 + (2 if code == "eps+fixed" else 1) + (3 if force else 0)
        self.head = VelocityHead(channels, encoder, decoder, field_downsample=field_downsample)

    def predict_noise(self, moving: Tensor, fixed: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """G's estimate of the noise in x_t, `[B, 1, D, H, W]`; x_t is on the scale [-1, 1], t is `[B]`.

        Raises:
            UserError: if the module was made without the denoising network.
        """
        if self.denoiser is None:
            raise UserError("code: fixed has no denoising network")
        return self.denoiser(torch.cat([2 * moving - 1, 2 * fixed - 1, x_t], dim=1), t)

    def velocity(self, moving: Tensor, fixed: Tensor, eps: Tensor | None = None, eta: float = 1.0) -> Tensor:
        """M's velocity `[B, 3, d, h, w]`; without `eps` G is asked at t = 0. The code is scaled by `eta` first."""
        h = self.h
        if h.code != "fixed" and eps is None:
            zero = torch.zeros(fixed.shape[0], dtype=torch.long, device=fixed.device)
            eps = self.predict_noise(moving, fixed, 2 * fixed - 1, zero)
        code = [] if eps is None else [eta * eps]
        if h.code != "eps":
            code.append(fixed)
        velocity, warped = fixed.new_zeros(()), moving
        for k in range(h.passes):
            if k:
                warped = warp(moving, self.displacement(velocity, fixed.shape[2:]))
            force = [ncc_force(warped, fixed, h.ncc_window)] if h.force else []
            velocity = velocity + self.head(torch.cat([warped, *code, *force], dim=1))
        return eta * velocity if h.code == "fixed" else velocity

    def displacement(self, velocity: Tensor, shape: Sequence[int]) -> Tensor:
        """`exp(v) - id` on the images' grid, `[B, 3, *shape]` in voxels."""
        return from_coarse(integrate(velocity, self.h.integration_steps), shape, self.h.field_downsample)

    def _registration_loss(self, moving: Tensor, fixed: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        warped = warp(moving, self.displacement(velocity, fixed.shape[2:]))
        return -local_ncc(warped, fixed, self.h.ncc_window), gradient_energy(velocity)

    @torch.no_grad()
    def register(self, moving: Tensor, fixed: Tensor, eta: float = 1.0, refine: int | None = None) -> Registration:
        """Register a pair in one pass.

        Arguments:
            moving, fixed: `[B, 1, D, H, W]` on one grid, in [0, 1].
            eta: how far along the continuous deformation (Algorithm 1), 1 is all the way.
            refine: gradient steps on the velocity afterwards; the module's own number unless given.
        """
        velocity = self.velocity(moving, fixed, eta=eta).float()
        steps = self.refine if refine is None else refine
        if steps:
            velocity = self._refined(moving, fixed, velocity, steps)
        displacement = self.displacement(velocity, fixed.shape[2:])
        inverse = self.displacement(-velocity, fixed.shape[2:])
        return Registration(velocity, displacement, inverse, warp(moving, displacement))

    def _refined(self, moving: Tensor, fixed: Tensor, velocity: Tensor, steps: int) -> Tensor:
        """Adam on the registration loss of this pair; the last velocity that folds neither way is kept."""
        best = velocity.clone()
        with torch.inference_mode(False), torch.enable_grad():
            moving, fixed = moving.clone(), fixed.clone()
            v = velocity.clone().requires_grad_()
            optimizer = torch.optim.Adam([v], lr=self.refine_lr)
            for _ in range(steps):
                optimizer.zero_grad()
                similarity, roughness = self._registration_loss(moving, fixed, v)
                (similarity + self.h.smoothness_weight * roughness).backward()
                optimizer.step()
                flow = torch.cat([v.detach(), -v.detach()])
                if folded(integrate(flow, self.h.integration_steps)).any():
                    break
                best = v.detach().clone()
        return best

    @torch.no_grad()
    def continuous(self, moving: Tensor, fixed: Tensor, etas: Sequence[float]) -> Iterator[Registration]:
        """Algorithm 1: the deformation along η·eps for each η, from the identity's neighbourhood to the full field."""
        for eta in etas:
            yield self.register(moving, fixed, eta=eta, refine=0)

    @torch.no_grad()
    def synthesize(
        self, moving: Tensor, fixed: Tensor, steps: int = 200, generator: torch.Generator | None = None
    ) -> Tensor:
        """Algorithm 2: reverse diffusion from the noised moving image towards the fixed one.

        Starts from `sqrt(alpha_bar_T) m + sqrt(1 - alpha_bar_T) eps` and takes T single steps (Algorithm 2, line 7;
        no noise is added in the last one).

        Arguments:
            moving, fixed: `[B, 1, D, H, W]` in [0, 1].
            steps: T, at most the schedule's.

        Returns:
            `[B, 1, D, H, W]` in [0, 1].
        """
        if not 1 <= steps <= self.schedule.steps:
            raise UserError(f"steps: expected 1 to {self.schedule.steps}, got {steps}")

        def noise() -> Tensor:
            return torch.randn(moving.shape, generator=generator).to(moving)

        level = self.schedule.log_snr(torch.tensor([steps]))
        x = diffuse(2 * moving - 1, noise(), level)
        for t in range(steps, 0, -1):
            eps = self.predict_noise(moving, fixed, x, torch.full((len(x),), t, device=x.device))
            beta, bar, before = (
                float(c) for c in (self.schedule.beta[t], self.schedule.alpha_bar[t], self.schedule.alpha_bar[t - 1])
            )
            x = (x - beta / (1 - bar) ** 0.5 * eps) / (1 - beta) ** 0.5
            if t > 1:
                x = x + (beta * (1 - before) / (1 - bar)) ** 0.5 * noise()
        return ((x + 1) / 2).clamp(0, 1)

    def _losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        moving, fixed = batch["moving"], batch["fixed"]
        eps_hat, diffusion = None, fixed.new_zeros(())
        if self.denoiser is not None:
            t = torch.randint(1, self.schedule.steps + 1, (len(fixed),), device=fixed.device)
            noise = torch.randn_like(fixed)
            x_t = diffuse(2 * fixed - 1, noise, self.schedule.log_snr(t))
            eps_hat = self.predict_noise(moving, fixed, x_t, t)
            diffusion = (eps_hat.float() - noise).square().mean()
        velocity = self.velocity(moving, fixed, eps_hat)
        similarity, roughness = self._registration_loss(moving, fixed, velocity)
        weight = self.h.similarity_weight
        loss = diffusion + weight * (similarity + self.h.smoothness_weight * roughness)
        return {"loss": loss, "diffusion": diffusion, "similarity": similarity, "roughness": roughness}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self._losses(batch)
        self.log_dict({f"train/{k}": v for k, v in losses.items()}, batch_size=len(batch["fixed"]))
        self.log("ncc", -losses["similarity"].detach(), prog_bar=True, logger=False)
        return losses["loss"]

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        moving, fixed = batch["moving"], batch["fixed"]
        refine = 0 if self.trainer.state.fn == "fit" else self.refine
        result = self.register(moving, fixed, refine=refine)
        metrics = {
            "ncc": local_ncc(result.warped, fixed, self.h.ncc_window),
            "displacement": torch.linalg.vector_norm(result.displacement, dim=1)[moving[:, 0] > 0.05].mean(),
            "folded": (folded(result.displacement) + folded(result.inverse)).float().mean(),
            "sd_log_jacobian": log_jacobian(result.inverse)[moving > 0.05].std(),
        }
        if "fixed_labels" in batch:
            classes = len(self.contract["template"]["classes"])
            positions = identity(fixed.shape[2:], fixed.device) + result.displacement
            labels, _ = warp_labels(batch["moving_labels"], positions, classes)
            pairs = zip(labels, batch["fixed_labels"], strict=True)
            metrics["dice"] = torch.stack([dice(a, b, classes).nanmean() for a, b in pairs]).mean()
        shown = {"dice", "ncc"}
        for key, value in metrics.items():
            self.log(f"{stage}/{key}", value, prog_bar=key in shown, batch_size=len(fixed), sync_dist=True)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch, "test")

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

    def configure_optimizers(self) -> Any:
        h = self.h
        return self.adam(h.lr, tuple(h.betas), h.warmup_steps, h.lr_decay)

    def on_predict_start(self) -> None:
        self.writer = RegistrationWriter(self)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Row | None:
        return self.writer.write(batch)

    def on_predict_end(self) -> None:
        self.failures = self.writer.close()
