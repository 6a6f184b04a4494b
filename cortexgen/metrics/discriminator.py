"""A small 3D network that learns to tell two sets of brains apart, and what it says of brains that it hasn't seen."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cortexgen.runner.precision import Precision, autocast
from cortexgen.runner.progress import tracked

WIDTHS = (1, 8, 16, 32, 64)
BATCH, RATE, SHIFT = 4, 2e-3, 2  # brains of each side a step; voxels
RECIPE = f"CNN {WIDTHS}, {BATCH} brains of each side a step, AdamW {RATE}, shifts of {SHIFT}"  # what results depend on

Readers = Sequence[Callable[[], Tensor]]


def small_cnn() -> nn.Module:
    """Four 3×3×3 convolutions that halve the grid, means over space and one number, `[B, 1, D, H, W]` to `[B]`."""
    layers: list[nn.Module] = []
    for before, after in pairwise(WIDTHS):
        layers += [nn.Conv3d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(WIDTHS[-1], 1), nn.Flatten(0))


def _varied(image: Tensor, generator: torch.Generator) -> Tensor:
    """A brain mirrored or not, moved by up to two voxels: where it lies is no news."""
    if int(torch.randint(2, (), generator=generator)):
        image = image.flip(-1)
    shifts = torch.randint(-SHIFT, SHIFT + 1, (3,), generator=generator).tolist()
    return image.roll(shifts, dims=(-3, -2, -1))


def train_classifier(
    sides: tuple[Readers, Readers],
    steps: int,
    seed: int = 0,
    device: torch.device | None = None,
    precision: Precision = "auto",
    name: str = "classifier",
) -> nn.Module:
    """A network whose answer is above 0 for brains of the first side; all of it is drawn from the seed.

    Cross-entropy with as many brains of either side in each step, AdamW with one cycle of the learning rate.

    Arguments:
        sides: what reads an image in [0, 1], `[1, D, H, W]`, of each brain of the two.
        name: on the progress bar.
    """
    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = small_cnn().to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    truth = torch.tensor([1.0] * BATCH + [0.0] * BATCH, device=device)
    for _ in tracked(range(steps), name, unit="step"):
        drawn = [side[int(torch.randint(len(side), (), generator=generator))] for side in sides for _ in range(BATCH)]
        images = torch.stack([_varied(read(), generator) for read in drawn]).to(device)
        with autocast(device, precision):
            answer = net(images)
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(answer.float(), truth).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def scores(net: nn.Module, side: Readers, device: torch.device | None = None, precision: Precision = "auto") -> Tensor:
    """The network's answer for each brain, the mean of it and its mirror image, `[N]`, float64."""
    device = device or torch.device("cpu")
    out = []
    for read in side:
        image = read()
        with autocast(device, precision):
            out.append(net(torch.stack([image, image.flip(-1)]).to(device)).double().mean().cpu())
    return torch.stack(out)


def held_out_scores(
    sides: tuple[Readers, Readers],
    steps: int,
    folds: int,
    seed: int = 0,
    device: torch.device | None = None,
    precision: Precision = "auto",
    name: str = "classifier",
) -> tuple[Tensor, Tensor]:
    """What a network that learned from the other folds says of each brain, `[N]` and `[M]`: above 0 for the first side.

    Arguments are those of `train_classifier`; folds are drawn from the seed, with as many of a side in each.
    """
    generator = torch.Generator().manual_seed(seed)
    fold = [torch.randperm(len(side), generator=generator) % folds for side in sides]
    out = tuple(torch.full((len(side),), torch.nan, dtype=torch.float64) for side in sides)
    for k in range(folds):
        test = [of == k for of in fold]
        learned = [[side[i] for i in torch.nonzero(~t).flatten().tolist()] for side, t in zip(sides, test, strict=True)]
        title = f"{name}, part {k + 1} of {folds}"
        net = train_classifier((learned[0], learned[1]), steps, seed + k, device, precision, title)
        for values, t, side in zip(out, test, sides, strict=True):
            values[t] = scores(net, [side[i] for i in torch.nonzero(t).flatten().tolist()], device, precision)
    return out[0], out[1]
