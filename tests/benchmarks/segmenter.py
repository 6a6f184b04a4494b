r"""Are synthetic brains' labels right, and of use? MONAI's U-Net judges, and is judged.

    python tests/benchmarks/segmenter.py train OUT/real.pt --images REAL --registered REGISTERED --leave-out 05,10,15
    python tests/benchmarks/segmenter.py train OUT/synthetic.pt --images SYNTHETIC
    python tests/benchmarks/segmenter.py test OUT/real.pt OUT/synthetic.pt --images REAL --registered REGISTERED \
        --only 05,10,15
    python tests/benchmarks/segmenter.py test OUT/real.pt --images SYNTHETIC

Labels of real brains are the template's, warped by `cortexgen register` and fitted to the image, as those of synthetic
brains are; `--given` tests against the dsegs that lie beside the images. Patches of 64 voxels a side, mirrored, with
changes of brightness; steps and seeds are options.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor

from cortexgen.atlas.fitting import fit_labels
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.io import read_volume
from cortexgen.io.bids import derivative
from cortexgen.metrics.overlap import dice

PATCH, BATCH = 64, 2
CLASSES = list(load_template().classes)
Pair = tuple[Tensor, Tensor]


def network() -> UNet:
    return UNet(3, 1, len(CLASSES), channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=1, norm="instance")


def pairs(args: argparse.Namespace) -> list[Pair]:
    """Images with labels by class, `[1, D, H, W]` each, of the folders asked for."""
    out = []
    for root in args.images:
        for scan in read_cohort(root, "*_T1w.nii*", "*_dseg.nii*"):
            name = scan.subject.removeprefix("sub-")
            if name in args.leave_out or (args.only and name not in args.only):
                continue
            image, grid = read_volume(scan.image)
            image = normalize(image, scan.image)
            if args.registered and not args.given:
                warped, _ = read_volume(derivative(args.registered, scan.name, "dseg", desc="warped"), labels=True)
                labels = fit_labels(image, warped, CLASSES, min(grid.spacing))
            else:
                labels, _ = read_volume(scan.labels, labels=True)
            out.append((image, labels))
    return out[: args.most] if args.most else out


def patch(pair: Pair, generator: torch.Generator) -> Pair:
    image, labels = pair
    inside = torch.nonzero(image[0] > 0)
    middle = inside[int(torch.randint(len(inside), (), generator=generator))].tolist()
    corner = [min(max(0, m - PATCH // 2), n - PATCH) for m, n in zip(middle, image.shape[1:], strict=True)]
    box = (slice(None), *(slice(c, c + PATCH) for c in corner))
    image, labels = image[box], labels[box]
    if torch.rand((), generator=generator) < 0.5:
        image, labels = image.flip(-1), labels.flip(-1)
    gamma = 0.8 + 0.45 * float(torch.rand((), generator=generator))
    return image**gamma, labels


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    generator, data, net = torch.Generator().manual_seed(args.seed), pairs(args), network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=args.steps)
    loss_of, start = DiceCELoss(to_onehot_y=True, softmax=True), time.process_time()
    for step in range(args.steps):
        chosen = [data[int(torch.randint(len(data), (), generator=generator))] for _ in range(BATCH)]
        images, labels = (torch.stack(x) for x in zip(*(patch(p, generator) for p in chosen), strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            answer = net(images)
        loss = loss_of(answer.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"{step + 1} steps, loss {float(loss.detach()):.3f}, {time.process_time() - start:.0f} s", flush=True)
    args.weights[0].parent.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), args.weights[0])
    print(f"{len(data)} brains, {args.steps} steps: {args.weights[0]}")


def test(args: argparse.Namespace) -> None:
    data = pairs(args)
    for path in args.weights:
        net = network()
        net.load_state_dict(torch.load(path, weights_only=True))
        net.eval()
        rows = []
        for image, labels in data:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                answer = sliding_window_inference(image[None], [PATCH] * 3, 2, net, overlap=0.25)
            rows.append(dice(answer[0].argmax(dim=0, keepdim=True), labels, len(CLASSES)).numpy())
        mean = np.nanmean(rows, axis=0)
        print(f"{path} on {len(rows)} brains: Dice {np.nanmean(rows):.4f}")
        print("   " + ", ".join(f"{name} {d:.3f}" for name, d in zip(CLASSES[1:], mean, strict=True)))


def main() -> None:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "test"])
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--registered", type=Path)
    parser.add_argument("--leave-out", type=names, default=[])
    parser.add_argument("--only", type=names)
    parser.add_argument("--given", action="store_true")
    parser.add_argument("--most", type=int)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    (train if args.what == "train" else test)(args)


if __name__ == "__main__":
    main()
