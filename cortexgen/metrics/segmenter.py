"""A small segmenter: what it learns from labelled brains says what their labels are worth."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cortexgen.metrics.overlap import dice
from cortexgen.runner.precision import Precision, autocast
from cortexgen.runner.progress import tracked

PATCH, BATCH = 64, 2
CHANNELS = (16, 32, 64, 128)
RATE = 2e-3
GAMMA = (0.8, 1.25)
OVERLAP = 0.25  # of neighbouring patches where a whole brain is segmented
RECIPE = f"U-Net {CHANNELS}, {BATCH} patches of {PATCH} a step, AdamW {RATE}"  # what results depend on

Pair = tuple[Tensor, Tensor]
Pairs = Sequence[Callable[[], Pair]]


def small_unet(classes: int) -> nn.Module:
    """MONAI's residual U-Net of four levels, `[B, 1, D, H, W]` to `[B, classes, D, H, W]`."""
    from monai.networks.nets import UNet  # takes a second

    strides = [2] * (len(CHANNELS) - 1)
    return UNet(3, 1, classes, channels=CHANNELS, strides=strides, num_res_units=1, norm="instance")


def random_patch(pair: Pair, generator: torch.Generator) -> Pair:
    """`[1, 64, 64, 64]` of an image and its classes around a voxel of the brain, of another gamma; filled by 0."""
    image, labels = pair
    missing = [max(0, PATCH - n) for n in image.shape[1:]]
    if any(missing):
        margins = [part for n in reversed(missing) for part in (n // 2, n - n // 2)]
        image, labels = F.pad(image, margins), F.pad(labels, margins)
    inside = torch.nonzero(image[0] > 0)
    middle = inside[int(torch.randint(len(inside), (), generator=generator))].tolist()
    corner = [min(max(0, m - PATCH // 2), n - PATCH) for m, n in zip(middle, image.shape[1:], strict=True)]
    box = (slice(None), *(slice(c, c + PATCH) for c in corner))
    low, high = GAMMA
    gamma = low * (high / low) ** float(torch.rand((), generator=generator))
    return image[box] ** gamma, labels[box]


def train_segmenter(
    sides: Sequence[Pairs],
    classes: int,
    steps: int,
    seed: int = 0,
    device: torch.device | None = None,
    precision: Precision = "auto",
    name: str = "segmenter",
) -> nn.Module:
    """A segmenter after so many steps on brains of one set, or of two by turns, so that each has half of every step.

    Dice and cross-entropy, AdamW with one cycle of the learning rate; all of it is drawn from the seed.

    Arguments:
        sides: what reads an image in [0, 1] and its classes, `[1, D, H, W]` both, of each brain of each set.
        classes: how many, background included.
        name: on the progress bar.
    """
    from monai.losses import DiceCELoss  # takes a second

    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = small_unet(classes).to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    loss_of: Any = DiceCELoss(to_onehot_y=True, softmax=True)
    for _ in tracked(range(steps), name, unit="step"):
        chosen = []
        for k in range(BATCH):
            side = sides[k % len(sides)]
            read = side[int(torch.randint(len(side), (), generator=generator))]
            chosen.append(random_patch(read(), generator))
        image, labels = (torch.stack(each).to(device) for each in zip(*chosen, strict=True))
        with autocast(device, precision):
            answer = net(image)
        optimizer.zero_grad()
        loss_of(answer.float(), labels).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def segmented(
    net: nn.Module, image: Tensor, device: torch.device | None = None, precision: Precision = "auto"
) -> Tensor:
    """Classes `[1, D, H, W]` of a whole brain `[1, D, H, W]` in [0, 1], of overlapping patches."""
    from monai.inferers import sliding_window_inference  # takes a second

    device = device or torch.device("cpu")
    with autocast(device, precision):
        found = sliding_window_inference(image[None].to(device), [PATCH] * 3, BATCH, net, overlap=OVERLAP)
    return found[0].float().argmax(dim=0, keepdim=True).cpu()


def overlaps(net: nn.Module, pair: Pair, classes: int, **how: Any) -> Tensor:
    """Dice of each class but the background, `[classes - 1]`; NaN where a brain and the answer lack it."""
    image, labels = pair
    return dice(segmented(net, image, **how), labels, classes)
