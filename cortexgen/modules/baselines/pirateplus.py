"""PIRATE+: the denoiser of plug-and-play registration, fine-tuned where its iterations end."""

from typing import Any

import torch
from torch import Tensor

from cortexgen.contracts import Solved
from cortexgen.losses import folding_penalty, gradient_size, local_ncc
from cortexgen.modules.baselines.pirate import RUN_TIME, PirateModule
from cortexgen.modules.registration import RegistrationModule
from cortexgen.registration.anderson import anderson
from cortexgen.registration.plugandplay import Misfit, PlugAndPlay
from cortexgen.spatial import integrate


class PiratePlusModule(PirateModule):
    """PIRATE+ (Hu et al., ICLR 2024): PIRATE's denoiser as part of a deep equilibrium model.

    A field is where an iteration of constant step stands still, found by Anderson acceleration; one more iteration
    carries the gradient to the denoiser (a one-step gradient: Fung et al., "JFB", AAAI 2022). The loss is
    `-LNCC(moving∘φ, fixed) + lambda_fold fold(φ) + lambda_phi |∇φ|`, fold with a margin of 0.5. It learns from pairs,
    batches of `RegistrationDataModule`, and starts from PIRATE's weights (`--start_from`).

    Arguments:
        width, depth, integration_steps, field_downsample, lr: as of `PirateModule`.
        ncc_window: side of the LNCC's windows in the loss, in voxels.
        folding_weight: lambda_fold.
        gradient_weight: lambda_phi.
        tolerance: relative change of a field that stands still.
        iterations: at most (a run-time option, like those that follow).
        step: γ.
        weight: τ, of the denoiser.
        smoothness: weight of the squared gradient of the field in an iteration.
        window: of the correlation in an iteration; 0 correlates whole images, as published.
    """

    stage = "PIRATE+"
    method = "pirate+"
    _data_contract = RegistrationModule._data_contract

    def __init__(
        self,
        width: int = 64,
        depth: int = 6,
        integration_steps: int = 0,
        field_downsample: int = 2,
        ncc_window: int = 21,
        folding_weight: float = 5.0,
        gradient_weight: float = 1.0,
        tolerance: float = 1e-3,
        lr: float = 1e-6,
        iterations: int = 500,
        step: float = 0.073,
        weight: float = 0.69,
        smoothness: float = 1.0,
        window: int = 0,
    ) -> None:
        super().__init__(width, depth, 1.0, integration_steps, field_downsample, lr, iterations, step, weight)
        self.smoothness, self.window = smoothness, window
        self.save_hyperparameters(ignore=RUN_TIME)

    def _iteration(self, field: Tensor, misfit: Misfit) -> Tensor:
        return PlugAndPlay(1, self.step, self.weight).moved(field, misfit.gradient, self.noise)

    def equilibrium(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, int]:
        """The field of a pair `[1, 1, D, H, W]`, `[1, 3, d, h, w]` with a gradient by the denoiser; its iterations."""
        misfit = self.misfit(moving, fixed)
        found = anderson(
            lambda field: self._iteration(field, misfit),
            self.start(fixed),
            self.iterations,
            tolerance=self.h.tolerance,
        )
        return self._iteration(found.point, misfit), found.iterations

    def _losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        h, each = self.h, []
        for moving, fixed in zip(batch["moving"].split(1), batch["fixed"].split(1), strict=True):
            field, iterations = self.equilibrium(moving, fixed)
            similarity = local_ncc(self.misfit(moving, fixed).warped(field), fixed, h.ncc_window)
            folding = folding_penalty(integrate(field, h.integration_steps), margin=0.5)
            loss = -similarity + h.folding_weight * folding + h.gradient_weight * gradient_size(field)
            each.append(
                {"loss": loss, "ncc": similarity, "folding": folding, "iterations": loss.new_tensor(iterations)}
            )
        return {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        losses = self._losses(batch)
        self.log_dict({f"train/{name}": value for name, value in losses.items()}, batch_size=len(batch["fixed"]))
        return self.checked(losses["loss"])

    def _evaluate(self, batch: dict[str, Any], stage: str) -> None:
        losses = self._losses(batch)
        for name, value in losses.items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "ncc", batch_size=len(batch["fixed"]), sync_dist=True)

    @torch.no_grad()
    def solve(self, moving: Tensor, fixed: Tensor) -> Solved:
        return Solved(*self.equilibrium(moving, fixed))
