"""Gradient steps on the velocity of one pair, after the network's answer."""

import torch
from torch import Tensor

from cortexgen.losses import RegistrationLoss
from cortexgen.spatial import folded, integrate


def _folds(velocity: Tensor, steps: int) -> int:
    flow = torch.cat([velocity, -velocity])
    return int(folded(integrate(flow, steps)).sum())


def refine(
    velocity: Tensor, moving: Tensor, fixed: Tensor, loss: RegistrationLoss, steps: int, lr: float, symmetric: bool
) -> tuple[Tensor, int]:
    """Adam on the loss of this pair; it stops at the last velocity that folds neither way.

    A velocity that folds from the start may go on while it folds.

    Arguments:
        velocity: `[1, 3, d, h, w]`, where to start.
        moving, fixed: `[1, 1, D, H, W]`.
        steps: gradient steps at most.
        lr: in voxels of the velocity's grid; falls to nothing as half a cosine.
        symmetric: compare in both images' spaces.

    Returns:
        The velocity, and the number of steps that were kept.
    """
    best, kept = velocity.clone(), 0
    unfolded = _folds(best, loss.integration_steps) == 0
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(velocity.device.type, enabled=False):
        moving, fixed = moving.clone(), fixed.clone()
        v = velocity.float().clone().requires_grad_()
        optimizer = torch.optim.Adam([v], lr=lr, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            loss(moving, fixed, v).backward()
            if symmetric:
                loss(moving, fixed, v, "moving").backward()
            optimizer.step()
            schedule.step()
            folds = _folds(v.detach(), loss.integration_steps)
            if folds and unfolded:
                break
            unfolded = not folds
            best, kept = v.detach().clone(), step
    return best, kept
