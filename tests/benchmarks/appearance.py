"""Synthetic brains against held-out real ones, as pictures: what tells them apart, cohort by cohort.

    cortexgen register REAL REGISTERED --refine 20
    cortexgen generate SYNTHETIC --num-samples 40 --cohort NAME
    python tests/benchmarks/appearance.py REAL REGISTERED SYNTHETIC OUT --held-out 05,10,15

Each row compares two sets of equally many brains on the real ones' grid: halves of the held-out subjects (the floor),
SYNTHETIC, the same warped templates without an appearance, and real brains blurred by .6 voxels, which a measure worth
having must tell. Labels of real brains are the warped ones fitted to the image, as those of synthetic brains are.
Writes OUT/appearance.tsv, a row a set, and OUT/brains.png, twenty real brains beside twenty synthetic ones. With
--copies, each set's patches of 24 voxels a side, their middle every 12 voxels, are sought among all other real brains'
patches of the same place and their mirror images: the mean of the best correlations, and how many are above what one in
a hundred of held-out people's reach; training images with a little noise are a set of copies that must be seen. Sets
that are alike are nearer to anybody: whether synthetic patches are nearer to training people than to as many held-out
ones says whether that is it.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from cortexgen.atlas.fitting import fit_labels
from cortexgen.atlas.intensity import normalize
from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import read_cohort
from cortexgen.data.style import measure_style
from cortexgen.io import read_volume
from cortexgen.io.bids import derivative, write_tsv
from cortexgen.metrics.cortex import CORTEX, WHITE, cortical_measures
from cortexgen.metrics.coverage import precision_and_coverage
from cortexgen.metrics.ms_ssim import ms_ssim
from cortexgen.metrics.random_features import RandomFeatures
from cortexgen.metrics.spectrum import radial_power

PATCH, STEPS, BATCH = 32, 250, 16  # of the classifier
LR = 2e-3
TEMPLATE = load_template()
CLASSES = list(TEMPLATE.classes)


@dataclass
class Brains:
    """A set: images `[1, D, H, W]` with labels, and what was measured of each."""

    name: str
    images: list[Tensor]
    labels: list[Tensor]
    spacing: float = 2.0

    def __post_init__(self) -> None:
        self.power = torch.stack([radial_power(x, [self.spacing] * 3) for x in self.images])
        with torch.no_grad():
            network = RandomFeatures()
            self.features = torch.cat([network(x[None]) for x in self.images])

    def texture(self) -> dict[str, float]:
        """Means of contrast, noise and sharpness: the gradient where grey and white matter meet."""
        rows = []
        for image, labels in zip(self.images, self.labels, strict=True):
            row = measure_style(image, labels, CLASSES, self.spacing)
            white, grey = ((labels == CLASSES.index(k)).float()[None] for k in (WHITE, CORTEX))
            meet = (F.max_pool3d(white, 3, 1, 1) * F.max_pool3d(grey, 3, 1, 1) * (white + grey))[0, 0] > 0
            gradient = torch.stack(torch.gradient(image[0])).norm(dim=0)
            rows.append(
                {k: row[k] for k in ("contrast", "noise", "fluid")} | {"sharpness": float(gradient[meet].mean())}
            )
        return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}

    def cortex(self) -> np.ndarray:
        found = [cortical_measures(x, CLASSES, [self.spacing] * 3) for x in self.labels]
        return np.array([[c.thickness, c.white_area, c.folding] for c in found])

    def part(self, which: Sequence[int], name: str = "") -> "Brains":
        out = Brains.__new__(Brains)
        out.name, out.spacing = name or self.name, self.spacing
        out.images, out.labels = [self.images[i] for i in which], [self.labels[i] for i in which]
        out.power, out.features = self.power[list(which)], self.features[list(which)]
        return out


def other_images(root: Path, names: Sequence[str]) -> list[Tensor]:
    scans = [s for s in read_cohort(root, "*_T1w.nii*") if s.subject.removeprefix("sub-") not in names]
    return [normalize(read_volume(scan.image)[0], scan.image) for scan in scans]


def real_brains(root: Path, registered: Path, names: Sequence[str], name: str) -> Brains:
    images, labels = [], []
    for scan in read_cohort(root, "*_T1w.nii*"):
        if scan.subject.removeprefix("sub-") not in names:
            continue
        image, grid = read_volume(scan.image)
        images.append(normalize(image, scan.image))
        warped, _ = read_volume(derivative(registered, scan.name, "dseg", desc="warped"), labels=True)
        labels.append(fit_labels(images[-1], warped, CLASSES, min(grid.spacing)))
    return Brains(name, images, labels)


def synthetic_brains(root: Path, name: str) -> Brains:
    paths = sorted(root.glob("sub-*/anat/*_T1w.nii.gz"))
    images = [read_volume(p)[0] for p in paths]
    labels = [read_volume(Path(str(p).replace("_T1w", "_dseg")), labels=True)[0] for p in paths]
    return Brains(name, images, labels)


def blurred(brains: Brains) -> Brains:
    images = [torch.from_numpy(gaussian_filter(x[0].numpy(), 0.6))[None] * (x > 0) for x in brains.images]
    return Brains("real, blurred by .6 voxels", images, brains.labels)


def similarity(brains: Brains, pairs: int, mask: Tensor) -> float:
    every = torch.combinations(torch.arange(len(brains.images)))
    chosen = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:pairs]]
    return float(np.mean([ms_ssim(brains.images[i], brains.images[j], mask) for i, j in chosen.tolist()]))


def linear_accuracy(a: Tensor, b: Tensor, folds: int = 5) -> float:
    """Of a logistic regression on standardized features, cross-validated."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = torch.cat([a, b]).numpy(), np.r_[np.zeros(len(a)), np.ones(len(b))]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    cut = StratifiedKFold(folds, shuffle=True, random_state=0)
    return float(cross_val_score(model, x, y, cv=cut).mean())


def _patches(brains: Sequence[Tensor], masks: Sequence[Tensor], count: int, generator: torch.Generator) -> Tensor:
    out = []
    for _ in range(count):
        k = int(torch.randint(len(brains), (), generator=generator))
        places = masks[k]
        d, h, w = (places[int(torch.randint(len(places), (), generator=generator))] - PATCH // 2).tolist()
        shape = brains[k].shape[1:]
        d, h, w = (min(max(0, x), n - PATCH) for x, n in zip((d, h, w), shape, strict=True))
        out.append(brains[k][:, d : d + PATCH, h : h + PATCH, w : w + PATCH])
    return torch.stack(out)


def cnn_accuracy(a: Sequence[Tensor], b: Sequence[Tensor], folds: int = 2) -> float:
    """Of a small 3D CNN on patches, a brain's vote being the mean of 24 of them, cross-validated."""
    masks = {id(x): torch.nonzero(x[0] > 0) for x in [*a, *b]}
    right = total = 0
    for fold in range(folds):
        torch.manual_seed(fold)
        generator = torch.Generator().manual_seed(fold)
        sides = [
            [[x for i, x in enumerate(s) if (i % folds == fold) == test] for s in (a, b)] for test in (False, True)
        ]
        widths = (1, 16, 32, 64)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv3d(before, after, 3, padding=1), nn.BatchNorm3d(after), nn.ReLU(), nn.MaxPool3d(2)]
        net = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 1))
        optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=STEPS)
        for _ in range(STEPS):
            x = torch.cat([_patches(s, [masks[id(v)] for v in s], BATCH // 2, generator) for s in sides[0]])
            y = torch.cat([torch.zeros(BATCH // 2), torch.ones(BATCH // 2)])
            if torch.rand((), generator=generator) < 0.5:
                x = x.flip(-1)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.binary_cross_entropy_with_logits(net(x)[:, 0].float(), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        net.eval()
        for truth, side in enumerate(sides[1]):
            for brain in side:
                with torch.no_grad():
                    vote = net(_patches([brain], [masks[id(brain)]], 24, generator)).mean()
                right, total = right + int((vote > 0) == bool(truth)), total + 1
    return right / total


def nearest_patches(images: Sequence[Tensor], training: Sequence[Tensor], size: int = 24, step: int = 12) -> Tensor:
    """The best correlation of each patch with training images' of the same place or its mirror, `[N, places]`."""
    shape = images[0].shape[1:]
    inside = torch.stack([x[0] > 0 for x in images]).float().mean(dim=0)
    best = []
    for corner in np.ndindex(*((n - size) // step + 1 for n in shape)):
        box = tuple(slice(step * k, step * k + size) for k in corner)
        if inside[box].mean() < 0.9:
            continue
        rows = [torch.stack([x[0][box].flatten() for x in images])]
        rows.append(torch.stack([y[0][box].flatten() for x in training for y in (x, x.flip(-1))]))
        a, b = (F.normalize(r - r.mean(dim=1, keepdim=True), dim=1) for r in rows)
        best.append((a @ b.T).amax(dim=1))
    return torch.stack(best, dim=1)


def copies(real: Brains, others: Sequence[Brains], training: Sequence[Tensor]) -> dict[str, tuple[float, float]]:
    """Of each set, the mean best correlation of a patch, and the share above held-out people's 99th percentile."""
    noise = torch.Generator().manual_seed(0)
    planted = [(x + 0.02 * torch.randn(x.shape, generator=noise)) * (x > 0) for x in training[:8]]
    limit = float(nearest_patches(real.images, training).flatten().quantile(0.99))
    sets = {real.name: real.images, "planted copies": planted} | {x.name: x.images for x in others}
    found = {name: nearest_patches(images, training) for name, images in sets.items()}
    return {name: (float(r.mean()), float((r > limit).float().mean())) for name, r in found.items()}


def preference(images: Sequence[Tensor], training: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[float, float]:
    """The mean best correlation of a patch with training people's, and with as many others': alike, if none is copied.

    Means of subsets of the training people, for the more there are, the nearer the nearest is.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(training), generator=generator).tolist()
    parts = [order[k : k + len(others)] for k in range(0, len(order) - len(others) + 1, len(others))]
    trained = [nearest_patches(images, [training[i] for i in part]) for part in parts]
    return float(torch.stack(trained).mean()), float(nearest_patches(images, others).mean())


def picture(path: Path, real: Brains, other: Brains, count: int = 20) -> None:
    """Three planes of real brains on the left, of the others on the right."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    count = min(count, len(real.images), len(other.images))
    rows = []
    for k in range(count):
        row = []
        for brains in (real, other):
            image = brains.images[k][0]
            d, h, w = (n // 2 for n in image.shape)
            planes = (image[d + 6], image[:, h - 6], image[:, :, w + 10])
            height = max(p.shape[0] for p in planes)
            row += [F.pad(p.flip(0), (0, 0, 0, height - p.shape[0])) for p in planes]
        rows.append(torch.cat(row, dim=1))
    sheet = torch.cat(rows).numpy()
    with mpl.rc_context({"savefig.dpi": 100}):
        figure = Figure(figsize=(sheet.shape[1] / 100, sheet.shape[0] / 100))
        figure.add_axes((0, 0, 1, 1)).imshow(sheet, cmap="gray", vmin=0, vmax=1)
        figure.axes[0].axis("off")
        figure.savefig(path)


def compare(real: Brains, other: Brains, pairs: int, mask: Tensor, cnn: bool) -> dict[str, object]:
    """A row: the other set against the real one, equally many of both."""
    n = min(len(real.images), len(other.images))
    real, other = real.part(range(n)), other.part(range(n))
    theirs, ours = real.texture(), other.texture()
    row: dict[str, object] = {"set": other.name, "n": n, "MS-SSIM": round(similarity(other, pairs, mask), 4)}
    row["MS-SSIM of real"] = round(similarity(real, pairs, mask), 4)
    row |= {k: round(ours[k] / theirs[k], 3) for k in theirs}
    ratios = (other.power.mean(dim=0) / real.power.mean(dim=0)).tolist()
    row |= {f"power {k + 1}": round(r, 3) for k, r in enumerate(ratios)}
    spread = real.features.std(dim=0).clamp(min=1e-6)
    x, y = real.features / spread, other.features / spread
    found = precision_and_coverage(torch.cdist(x, y), torch.cdist(x, x), min(5, n - 1))
    row |= {"coverage": round(found.coverage, 3), "coverage expected": round(found.expected_coverage, 3)}
    row["linear accuracy"] = round(linear_accuracy(real.features, other.features), 3)
    if cnn:
        row["CNN accuracy"] = round(cnn_accuracy(real.images, other.images), 3)
    a, b = real.cortex(), other.cortex()
    d = (b.mean(0) - a.mean(0)) / np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / 2)
    return row | {f"d {k}": round(float(v), 2) for k, v in zip(("thickness", "area", "folding"), d, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("registered", type=Path)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", required=True, help="subjects, such as 05,10")
    parser.add_argument("--plain", type=Path, help="the same brains of `generate --appearance template`")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--no-cnn", action="store_true")
    parser.add_argument("--copies", action="store_true")
    args = parser.parse_args()
    start, held = time.process_time(), args.held_out.split(",")
    real = real_brains(args.real, args.registered, held, "held-out")
    half = len(real.images) // 2
    mask = TEMPLATE.to(read_volume(next(args.synthetic.glob("sub-*/anat/*_T1w.nii.gz")))[1]).mask
    rows = [compare(real.part(range(half)), real.part(range(half, 2 * half), "real halves"), args.pairs, mask, False)]
    sets = [synthetic_brains(args.synthetic, "synthetic"), blurred(real)]
    if args.plain:
        sets.append(synthetic_brains(args.plain, "warped template"))
    for brains in sets:
        rows.append(compare(real, brains, args.pairs, mask, not args.no_cnn))
    args.out.mkdir(parents=True, exist_ok=True)
    picture(args.out / "brains.png", real, sets[0])
    write_tsv(args.out / "appearance.tsv", rows)
    for key in rows[1]:
        print(f"{key:18}", *(f"{row.get(key, '')!s:>24}" for row in rows))
    if args.copies:
        training = other_images(args.real, held)
        for name, (mean, share) in copies(real, [sets[0]], training).items():
            print(f"patches of {name}: best correlation {mean:.3f}, {share:.3f} above the limit")
        near, far = preference(sets[0].images, training, real.images)
        print(f"best correlation with {len(real.images)} training people {near:.4f}, with the held-out {far:.4f}")
    print(f"{time.process_time() - start:.0f} processor seconds")


if __name__ == "__main__":
    main()
