"""How often each measure of `cortexgen evaluate` says of new real people that they are not like the real ones.

    python tests/benchmarks/splits.py ds002748,ixi OUT

Real people are divided into halves at random, one in the place of a set. A false alarm is a value that is worse than
all of the floor beside it, real against real in twenty halvings; so would one more such halving be once in 21 times.
MS-SSIM and image MMD, which take pairs of images, are left out. What was measured of a brain is kept in OUT.
"""

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from cortexgen.evaluation import distribution as dist
from cortexgen.evaluation.comparison import Metric, Row, declared
from cortexgen.evaluation.frame import frame
from cortexgen.evaluation.labelling import GivenLabels
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.results import Options
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.texture import measured_texture
from cortexgen.metrics.resampling import Interval
from cortexgen.weights.catalogue import FEATURES


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", help="comma-separated, with label maps")
    parser.add_argument("out", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    measured = measure(given.cohorts.split(","), given.out)
    people = len(measured[0][1])
    rows: dict[str, list[Row]] = {metric.title: [] for metric, _ in measured}
    for split in range(given.splits):
        order = torch.randperm(people, generator=torch.Generator().manual_seed(split))
        real, new = order[: people // 2], order[people // 2 :]
        for metric, values in measured:
            rows[metric.title].append(metric.measure(values[real], values[new], resamples=2, seed=split))
    print(f"{people} people, {given.splits} splits: false alarms, and how many floors hold the value")
    for title, found in rows.items():
        inside = sum(row["floor"].low <= row["at_floor"] <= row["floor"].high for row in found)
        print(f"{title}: {sum(map(alarming, found))}, {inside}")
    print(f"all: {sum(alarming(row) for found in rows.values() for row in found)} of {given.splits * len(rows)}")


def measure(cohorts: list[str], out: Path) -> list[tuple[Metric, Tensor]]:
    """Metrics, and of each the rows of all people."""
    brains = BrainSet(cohorts, labels="*_dseg.nii*", labels_needed=True)
    networks = dist.load_extractors([], True, FEATURES)
    labeller = GivenLabels(brains.classes)
    evaluation = Evaluation(brains, out, labeller, networks, Options(protocols=("standard",)))
    store, anatomy = evaluation.real.store, evaluation.real.anatomy
    assert anatomy is not None
    texture = measured_texture(store, anatomy.index, labeller.key, labeller.classes)
    wanted = [metric for metric in declared() if metric.protocol == "standard"]
    found = [(metric, metric.rows(anatomy)) for metric in wanted if metric.needs == "anatomy"]
    found += [(metric, metric.rows(texture)) for metric in wanted if metric.needs == "texture"]
    for network in networks:
        features = dist.features(store, network, "standard", frame(store), "cpu")
        found += [(dist.of_network(metric, network), features) for metric in wanted if metric.needs == "features"]
    return [(metric, values) for metric, values in found if values is not None]


def alarming(row: Row) -> bool:
    """Whether a set is worse than every halving of the real brains."""
    value, floor, better = row["at_floor"], row["floor"], row["better"]
    assert isinstance(value, float) and isinstance(floor, Interval)
    if better in ("lower", "higher"):
        return value > floor.high if better == "lower" else value < floor.low
    assert isinstance(better, float)
    return abs(value - better) > max(abs(floor.low - better), abs(floor.high - better)) and not math.isnan(value)


if __name__ == "__main__":
    main()
