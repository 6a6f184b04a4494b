"""How often new people are flagged for a part of a training subject, and copied parts found.

    python tests/benchmarks/patches.py ds002748,ixi WORK

Real people are divided at random, into half to learn from, a fifth held out and the others in the place of a set: none
of these is a copy. Then a box in the middle of each of the last set is replaced by a training subject's, with noise.
"""

import argparse
from pathlib import Path

import torch

from cortexgen.evaluation.frame import frame
from cortexgen.evaluation.patch_copies import SIDE, detail_mask, details
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.store import Store
from cortexgen.metrics.patches import PatchMemorization, patch_memorization

COPIED = ((1.0, 0.0), (0.125, 0.0), (0.125, 0.02), (0.03, 0.02))  # share of the box, deviation of the noise


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", help="comma-separated")
    parser.add_argument("work", type=Path, help="a folder for decoded volumes")
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    store = Store("real", BrainSet(given.cohorts.split(",")), given.work)
    store.fill()
    view = frame(store)
    (_, maps), mask = details(store, view), detail_mask(store, view)
    first, second = len(maps) // 2, len(maps) * 7 // 10
    results: list[PatchMemorization] = []
    for split in range(given.splits):
        order = torch.randperm(len(maps), generator=torch.Generator().manual_seed(split))
        train, held_out, new = (maps[rows] for rows in (order[:first], order[first:second], order[second:]))
        results.append(patch_memorization(train, held_out, new, mask, SIDE))
    flagged = torch.cat([result.flagged for result in results]).double().mean()
    unlikely = sum(result.chance < 0.05 for result in results)
    print(f"{first}, {second - first} and {len(new)} people: {flagged:.3f} of new people flagged; {unlikely} splits of")
    print(f"{given.splits} with so many as had a probability below .05")
    for share, deviation in COPIED:
        sides = [int(n * share ** (1 / 3)) for n in mask.shape]
        box = tuple(slice((n - side) // 2, (n - side) // 2 + side) for n, side in zip(mask.shape, sides, strict=True))
        copied = new.float()
        copied[(slice(None), *box)] = train[: len(new)].float()[(slice(None), *box)]
        copied += deviation * torch.randn(copied.shape, generator=torch.Generator().manual_seed(1))
        found = patch_memorization(train, held_out, copied.half(), mask, SIDE)
        print(f"{share:g} of the box copied, noise {deviation:g}: {int(found.flagged.sum())} of {len(new)} flagged")


if __name__ == "__main__":
    main()
