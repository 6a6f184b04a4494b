"""Gradient steps on the velocity of one pair, after the network's answer."""

import math

import torch
from torch import Tensor

from cortexgen.losses import RegistrationLoss
from cortexgen.spatial import folded, integrate

WARM_UP = 4  # steps
RETREATS = 6  # smaller steps that are tried where one would fold


def _folds(velocity: Tensor, steps: int) -> bool:
    return any(bool(folded(integrate(velocity, steps, inverse)).any()) for inverse in (False, True))


def refine(
    velocity: Tensor, moving: Tensor, fixed: Tensor, loss: RegistrationLoss, steps: int, lr: float, symmetric: bool
) -> tuple[Tensor, int]:
    """Adam on the loss of this pair; the last velocity that folds neither way is kept.

    The learning rate warms up and falls as half a cosine. A step that would fold is taken back and the rate halved; it
    stops after six of those. A velocity that folds from the start may go on while it folds.

    Arguments:
        velocity: `[1, 3, d, h, w]`, where to start.
        moving, fixed: `[1, 1, D, H, W]`.
        steps: gradient steps at most.
        lr: in voxels of the velocity's grid.
        symmetric: compare in both images' spaces.

    Returns:
        The velocity, and the number of steps that were kept.
    """
    best, kept, retreats = velocity.clone(), 0, 0
    folds = _folds(best, loss.integration_steps)
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(velocity.device.type, enabled=False):
        moving, fixed = moving.clone(), fixed.clone()
        v = velocity.float().clone().requires_grad_()
        optimizer = torch.optim.Adam([v], betas=(0.9, 0.99))
        for step in range(steps):
            falling = 0.05 + 0.475 * (1 + math.cos(math.pi * step / steps))
            optimizer.param_groups[0]["lr"] = lr * falling * min(1.0, (step + 1) / WARM_UP) / 2**retreats
            optimizer.zero_grad()
            loss(moving, fixed, v).backward()
            if symmetric:
                loss(moving, fixed, v, "moving").backward()
            optimizer.step()
            folded_now = _folds(v.detach(), loss.integration_steps)
            if folded_now and not folds:
                retreats += 1
                if retreats > RETREATS:
                    break
                with torch.no_grad():
                    v.copy_(best)
                continue
            folds = folded_now
            best, kept = v.detach().clone(), kept + 1
    return best, kept
