"""Whether a set repeats training subjects: nearest neighbours in images and in fields, beside held-out subjects."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.frame import Frame
from cortexgen.evaluation.store import Store
from cortexgen.evaluation.table import Column
from cortexgen.metrics.gaussian import gaussian
from cortexgen.metrics.memorization import Memorization, memorization, nearest_subjects

COARSE = 4.0  # mm: distances between images are taken at this voxel size
SIGMA = 4.0  # mm: of the smoothing before
UNITS = {"images": "intensity", "fields": "log |J|"}  # of distances
Maps = tuple[list[str], Tensor]  # names of brains, and a map `[1, d, h, w]` of each

COLUMNS = (
    Column("set", "Set"),
    Column("compared", "Compared"),
    Column("n", "N"),
    Column("train", "Training subjects"),
    Column("reference", "Reference"),
    Column("median", "Median distance to the nearest"),
    Column("reference_median", "of the reference"),
    Column("ratio", "Ratio", better=1.0, format=".3f"),
    Column("smallest", "Smallest distance / reference", format=".3f"),
    Column("copies", "Copies", better="lower"),
    Column("apart", "Distance within the set / real", better=1.0, format=".3f"),
)


@dataclass(frozen=True)
class Copies:
    """The nearest training subjects of a set's brains.

    Attributes:
        compared: "images" or "fields".
        train: names of the training subjects.
        samples: names of the set's brains.
        reference: what the set is compared with.
        result: the distances.
        apart: median distance of the set's brains to the nearest other one of the set, over that of the real brains:
            near 0 where a set repeats itself.
    """

    compared: str
    train: list[str]
    samples: list[str]
    reference: str
    result: Memorization
    apart: float | None

    def row(self) -> Row:
        """The summary."""
        found = self.result
        return {
            "compared": self.compared,
            "n": len(self.samples),
            "train": len(self.train),
            "reference": self.reference,
            "median": found.median_generated,
            "reference_median": found.median_held_out,
            "ratio": found.ratio,
            "smallest": float(found.generated.distance.min()) / found.median_held_out,
            "copies": int(found.copies.sum()),
            "apart": self.apart,
        }

    def rows(self) -> list[Row]:
        """A row a brain, the nearest to a training subject first."""
        nearest = self.result.generated
        return [
            {
                "brain": self.samples[i],
                "compared": self.compared,
                "nearest": self.train[int(nearest.subject[i])],
                "mirrored": bool(nearest.mirrored[i]),
                "distance": float(nearest.distance[i]),
                "of_reference": float(nearest.distance[i]) / self.result.median_held_out,
                "of_second": float(nearest.ratio[i]),
                "copy": bool(self.result.copies[i]),
            }
            for i in nearest.distance.argsort().tolist()
        ]


def mirrored_box(store: Store, view: Frame, voxel: float) -> tuple[list[int], list[int], list[int]]:
    """First and last voxel (D, H, W) of the frame's box, made symmetric about the grid's middle from left to right, and
    how many voxels of about so many mm, or of the grid's own size if that is larger, it has."""
    low, high = list(view.low), list(view.high)
    low[2] = min(low[2], store.grid.shape[2] - 1 - high[2])
    high[2] = store.grid.shape[2] - 1 - low[2]
    factors = [max(1.0, voxel / size) for size in store.grid.spacing]
    return low, high, [max(2, round((b - a + 1) / f)) for a, b, f in zip(low, high, factors, strict=True)]


def divided(names: Sequence[str], held_out: Collection[str]) -> tuple[list[int], list[int]]:
    """Places of training subjects among names, and of held-out ones."""
    out = [i for i, name in enumerate(names) if name in held_out]
    return [i for i, name in enumerate(names) if name not in held_out], out


def coarse_images(store: Store, view: Frame) -> Tensor:
    """Every brain of a set, smoothed and at about 4 mm in the frame's box, `[N, 1, d, h, w]`, mirror images alike."""
    low, high, size = mirrored_box(store, view, COARSE)
    key = f"{SIGMA} {size} {low} {high}"
    found = store.measure("coarse", key, partial(_coarse, store, low, high, size))
    return torch.stack([torch.from_numpy(found[i]["image"]) for i in sorted(found)]).float()


def _coarse(store: Store, low: list[int], high: list[int], size: list[int], i: int) -> dict[str, Tensor]:
    d, h, w = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    image = gaussian(store.image(i), SIGMA / min(store.grid.spacing))[:, d, h, w]
    return {"image": interpolate(image[None], size, mode="trilinear", align_corners=False)[0].half()}


def find_copies(compared: str, real: Maps, synthetic: Maps, held_out: set[str], mask: Tensor | None = None) -> Copies:
    """Nearest training subjects of synthetic brains, with held-out real ones as the reference.

    Arguments:
        compared: "images" or "fields".
        held_out: names of real brains that the generator hasn't seen; without any, all are training subjects, and the
            reference is each of them against the others.
        mask: of voxels that count, as of `memorization`; within it maps are smoothed by a voxel.

    Raises:
        UserError: if there are too few brains.
    """
    names, maps = real
    train, out = divided(names, held_out)
    reference = f"{len(out)} held-out subjects" if out else "training subjects, each against the others"
    sigma = float(mask is not None)
    result = memorization(maps[train], maps[out] if out else None, synthetic[1], sigma, mask=mask)
    apart = None
    if min(len(maps), len(synthetic[1])) > 2:
        within = [nearest_subjects(m, None, sigma, mask=mask).distance.quantile(0.5) for m in (maps, synthetic[1])]
        apart = float(within[1] / within[0])
    return Copies(compared, [names[i] for i in train], synthetic[0], reference, result, apart)
