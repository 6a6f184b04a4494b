"""A training step of the field U-Net beside video-diffusion-pytorch's Unet3D of the same width: time and memory.

    pip install video-diffusion-pytorch --no-deps && pip install rotary-embedding-torch einops-exts tqdm
    python tests/benchmarks/field_unet.py

Float32, one sample of 3 x 32 x 64 x 64, width 32, multipliers 1-2-4-4; then ours against depth and in-plane size. Each
runs in a process of its own, whose peak of resident memory above that before the network is given.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from unittest.mock import MagicMock

import torch


def ours() -> torch.nn.Module:
    from cortexgen.nets import FieldUNet

    return FieldUNet(3, 32, (1, 2, 4, 4), spatial_attention=("none", "linear", "full", "full"))


def peer() -> torch.nn.Module:
    for name in ("torchvision", "torchvision.transforms", "torchvision.utils", "transformers"):
        sys.modules.setdefault(name, MagicMock())  # what it loads videos and texts with
    from video_diffusion_pytorch import Unet3D

    return Unet3D(dim=32, dim_mults=(1, 2, 4, 4), channels=3)


def step(which: str, shape: list[int], repeats: int) -> dict[str, float]:
    """Seconds of the fastest training step, and its memory in MiB."""
    torch.manual_seed(0)
    net = ours() if which == "ours" else peer()
    optimizer = torch.optim.Adam(net.parameters())
    x, t = torch.randn(1, 3, *shape), torch.zeros(1)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(repeats):
        start = time.perf_counter()
        optimizer.zero_grad()
        net(x, t).square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parameters = sum(p.numel() for p in net.parameters())
    return {"seconds": min(seconds), "MiB": (peak - before) / 1024, "parameters": parameters / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--which", choices=["ours", "peer"])
    parser.add_argument("--shape", type=int, nargs=3, default=[32, 64, 64])
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.which:
        print(json.dumps(step(chosen.which, chosen.shape, chosen.repeats)))
        return
    runs = [("peer", (32, 64, 64)), ("ours", (32, 64, 64)), ("ours", (64, 64, 64)), ("ours", (32, 128, 128))]
    for which, shape in runs:
        command = [sys.executable, __file__, "--which", which, "--shape", *map(str, shape)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        figures = {k: round(v, 2) for k, v in json.loads(out).items()}
        print(f"{which:<5} {shape[0]} x {shape[1]} x {shape[2]}", figures, flush=True)


if __name__ == "__main__":
    main()
