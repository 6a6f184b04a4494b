"""Whether parts of a set's brains are parts of training subjects."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cortexgen.evaluation.comparison import Row
from cortexgen.evaluation.copies import divided, mirrored_box
from cortexgen.evaluation.frame import Frame
from cortexgen.evaluation.store import Store
from cortexgen.evaluation.table import Column
from cortexgen.io import Grid
from cortexgen.metrics.gaussian import gaussian
from cortexgen.metrics.patches import RATE, PatchMemorization, patch_memorization

VOXEL = 3.0  # mm: parts are compared at this voxel size
SIDE = 8  # voxels of a patch
FINE, COARSE = 1.5, 6.0  # mm: Gaussians between which detail lies

COLUMNS = (
    Column("set", "Set"),
    Column("n", "N"),
    Column("train", "Training subjects"),
    Column("reference", "Reference"),
    Column("margin", "Median margin", format=".3f"),
    Column("margin_reference", "of the reference", format=".3f"),
    Column("flagged", f"Flagged, {RATE:.0%} of new people are", better="lower"),
    Column("expected", "Expected of new people", format=".1f"),
    Column("chance", "Probability of so many", format=".3g"),
    Column("beyond", "Beyond everybody in the reference", better="lower"),
)


@dataclass(frozen=True)
class PatchCopies:
    """The patch of each brain that is most a training subject's.

    Attributes:
        train, samples: names.
        reference: who stands for new people.
        result: what was found.
        grid: that places are on.
    """

    train: list[str]
    samples: list[str]
    reference: str
    result: PatchMemorization
    grid: Grid

    def row(self) -> Row:
        """The summary."""
        found = self.result
        return {
            "n": len(self.samples),
            "train": len(self.train),
            "reference": self.reference,
            "margin": float(found.generated.margin.quantile(0.5)),
            "margin_reference": float(found.reference.margin.quantile(0.5)),
            "flagged": int(found.flagged.sum()),
            "expected": RATE * len(self.samples),
            "chance": found.chance,
            "beyond": int(found.beyond.sum()),
        }

    def rows(self) -> list[Row]:
        """A row a brain, the most suspicious first; places are the patches' middles in mm (RAS)."""
        found, rows = self.result.generated, list[Row]()
        for i in self.result.generated.margin.argsort(descending=True).tolist():
            middle = found.place[i].numpy() + (SIDE - 1) / 2
            x, y, z = (self.grid.affine[:3, :3] @ middle + self.grid.affine[:3, 3]).round(1).tolist()
            rows.append(
                {
                    "brain": self.samples[i],
                    "nearest": self.train[int(found.subject[i])],
                    "x": x,
                    "y": y,
                    "z": z,
                    "correlation": float(found.correlation[i]),
                    "margin": float(found.margin[i]),
                    "p": float(self.result.p[i]),
                    "flagged": bool(self.result.flagged[i]),
                }
            )
        return rows


def detail_grid(store: Store, view: Frame) -> Grid:
    """Of 3 mm, or the brains' own voxels if they are larger, in the frame's box, which is made symmetric."""
    low, high, size = mirrored_box(store, view, VOXEL)
    box = store.grid.box(low, high)
    scale = np.diag([*(np.array(box.shape) / size), 1.0])
    shift = np.eye(4)
    shift[:3, 3] = (np.array(box.shape) / size - 1) / 2
    return Grid((size[0], size[1], size[2]), box.affine @ shift @ scale)


def detail_mask(store: Store, view: Frame) -> Tensor:
    """Where real brains have tissue, on that grid, `[d, h, w]` bool."""
    low, high, size = mirrored_box(store, view, VOXEL)
    d, h, w = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    share = interpolate(view.mask[None, :, d, h, w].float(), size, mode="trilinear")
    return share[0, 0] > 0.5


def details(store: Store, view: Frame) -> tuple[list[str], Tensor]:
    """Of every brain of a set what a narrow Gaussian leaves and a wide one doesn't, `[N, d, h, w]`, float16."""
    low, high, size = mirrored_box(store, view, VOXEL)
    found = store.measure("detail", f"{FINE} {COARSE} {size} {low} {high}", partial(_detail, store, low, high, size))
    maps = [torch.from_numpy(found[i]["image"]) for i in sorted(found)]
    return [store.names[i] for i in sorted(found)], torch.stack(maps)


def _detail(store: Store, low: list[int], high: list[int], size: list[int], i: int) -> dict[str, Tensor]:
    d, h, w = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
    image, voxel = store.image(i), min(store.grid.spacing)
    fine, coarse = (gaussian(image, mm / voxel) for mm in (FINE, COARSE))
    band = (fine - coarse)[:, d, h, w]
    return {"image": interpolate(band[None], size, mode="trilinear", align_corners=False)[0, 0].half()}


def find_patch_copies(
    real: tuple[list[str], Tensor],
    synthetic: tuple[list[str], Tensor],
    held_out: set[str],
    mask: Tensor,
    grid: Grid,
) -> PatchCopies:
    """Patches of synthetic brains that are training subjects'.

    Arguments:
        real, synthetic: names, and `details`.
        held_out: names of real brains that the generator hasn't seen.
        mask: where real brains have tissue, on the grid, `[d, h, w]`.

    Raises:
        UserError: if there are too few brains.
    """
    names, maps = real
    train, out = divided(names, held_out)
    reference = "training subjects, each against the others" + f", and {len(out)} held-out ones" * bool(out)
    result = patch_memorization(maps[train], maps[out] if out else None, synthetic[1], mask, SIDE)
    return PatchCopies([names[i] for i in train], synthetic[0], reference, result, grid)
