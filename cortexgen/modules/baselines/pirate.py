"""PIRATE: plug-and-play registration with a denoiser of fields."""

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from cortexgen.contracts import Solved
from cortexgen.data.noise import SampleNoise
from cortexgen.errors import UserError
from cortexgen.io import Grid
from cortexgen.losses import loss_at_fixed_times
from cortexgen.modules.registration import RegistrationModule
from cortexgen.nets.baselines.dncnn import DnCNN
from cortexgen.registration.plugandplay import Misfit, PlugAndPlay
from cortexgen.spatial import coarse_shape, integrate

RUN_TIME = ["iterations", "step", "weight", "smoothness", "window"]


class PirateModule(RegistrationModule):
    """PIRATE (Hu et al., "Plug-and-play image registration network", ICLR 2024).

    A DnCNN learns to tell the noise in fields `[B, 3, d, h, w]` of registered people, batches of `FieldDataModule`. A
    pair is registered by steps that lower its misfit, global correlation and roughness, and take away a part of the
    noise that the network sees in the field (`PlugAndPlay`). Images are twice as fine as fields. Steps and weights are
    per voxel: at the published 160 x 192 x 224 voxels a step of 0.073 is a γ of 5e5, and a weight of 0.69 a τ of 1e-7.

    Arguments:
        width: channels of the denoiser.
        depth: its convolutions.
        sigma: standard deviation of the noise, in voxels of the fields.
        integration_steps: squarings of a velocity, which is denoised then; 0 takes displacements, as published.
        field_downsample: how much finer than fields images are.
        lr: learning rate of Adam.
        iterations: of a registration (a run-time option, like those that follow).
        step: γ of the first iteration; it falls to 0.
        weight: τ, of the denoiser.
        smoothness: weight of the squared gradient of the field.
        window: side of the windows of local correlation in voxels; 0 correlates whole images, as published.
    """

    stage, run_options = "PIRATE", RUN_TIME
    method = "pirate"

    def __init__(
        self,
        width: int = 64,
        depth: int = 6,
        sigma: float = 1.0,
        integration_steps: int = 0,
        field_downsample: int = 2,
        lr: float = 1e-5,
        iterations: int = 500,
        step: float = 0.073,
        weight: float = 0.69,
        smoothness: float = 1.0,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=RUN_TIME)
        self.iterations, self.step, self.weight = iterations, step, weight
        self.smoothness, self.window = smoothness, window
        self.net = DnCNN(3, width, depth)

    def _data_contract(self) -> dict[str, Any]:
        """That of the fields, with the grid of the images that they register."""
        found = super()._data_contract()
        fine = Grid.from_dict(found["grid"]).fine(self.h.field_downsample) if found else None
        return found | ({"grid": fine.to_dict()} if fine else {})

    def noise(self, field: Tensor) -> Tensor:
        """What the network takes for noise in a field `[B, 3, d, h, w]`, likewise, float32."""
        return self.net(field).float()

    def _loss(self, batch: dict[str, Any], noise: Tensor) -> Tensor:
        field = batch["velocity"]
        if not self.h.integration_steps:
            field = integrate(field, self.contract["integration_steps"])
        noise = self.h.sigma * noise
        return (self.noise(field + noise) - noise).square().mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self.checked(self._loss(batch, SampleNoise(batch, batch["velocity"]).normal()))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["velocity"]))
        return loss

    def checked(self, loss: Tensor) -> Tensor:
        """A loss that is a number.

        Raises:
            UserError: if it isn't.
        """
        if not math.isfinite(value := float(loss.detach())):
            raise UserError(f"the training diverged: its loss is {value} at step {self.global_step}")
        return loss

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        """The squared error of the noise, with fixed noise."""
        x = batch["velocity"]
        loss = loss_at_fixed_times(lambda _, noise: self._loss(batch, noise), x, 2)
        self.log(f"{stage}/loss", loss, prog_bar=True, batch_size=len(x), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.h.lr)

    def misfit(self, moving: Tensor, fixed: Tensor) -> Misfit:
        """Of a pair `[1, 1, D, H, W]`."""
        h = self.h
        return Misfit(moving, fixed, h.field_downsample, self.smoothness, h.integration_steps, self.window)

    def start(self, fixed: Tensor) -> Tensor:
        """The field that iterations start from, zero."""
        return fixed.new_zeros(1, 3, *coarse_shape(fixed.shape[2:], self.h.field_downsample))

    @torch.no_grad()
    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        iterate = PlugAndPlay(self.iterations, self.step, self.weight)
        field = iterate(self.start(fixed), self.misfit(moving, fixed).gradient, self.noise)
        return Solved(field, self.iterations)

    def predict_dataloader(self) -> NoReturn:
        """Fields are what it learns from, and not what it registers."""
        raise UserError(f"PIRATE registers images: cortexgen register --method {self.method} --checkpoint FILE")

    def example(self) -> None:
        """A denoiser has no picture."""
        return None
