"""Generators of fields against the cohort they were trained on and its held-out subjects, one table.

    cortexgen register COHORT FIELDS --refine 20
    python tests/benchmarks/generation.py FIELDS OUT --held-out 05,10,15 --samples 400

FIELDS is what `cortexgen predict` or `register` wrote for stage 1; the held-out subjects are those that the former
recorded, unless named. Without a checkpoint the package's weights draw. Samples are measured as they were drawn, before
any rejection; volumes are integrals of |J| of the inverse over the template's regions on both sides. Writes
OUT/generators.tsv, a row a generator, and OUT/volumes.tsv, a row a generator and class.

Then fields are drawn for the held-out people in turn, each given the covariates of one, and compared with theirs:
OUT/age_bands.*, d of each class in three bands of age, "not measured" where the interval is wider than ±0.4;
OUT/age_slopes.* and age_curves.*, volumes on age of each sex. `--people train` takes the training subjects instead,
who are more.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from cortexgen.atlas.template import Template
from cortexgen.data.fields import FieldDataModule
from cortexgen.evaluation.ageing import TABLES, People, age_rows
from cortexgen.evaluation.table import Table
from cortexgen.generation.deformation_model import StatisticalDeformationModel
from cortexgen.io.bids import write_tsv
from cortexgen.metrics.coverage import expected_coverage, precision_and_coverage
from cortexgen.metrics.distances import pairwise_distances
from cortexgen.metrics.effects import cohens_d, sd_ratio
from cortexgen.metrics.memorization import memorization
from cortexgen.metrics.morphometry import regional_volumes, volume_weights
from cortexgen.metrics.ms_ssim import ms_ssim
from cortexgen.metrics.voxelwise import log_jacobian_spread
from cortexgen.runner.precision import autocast
from cortexgen.spatial import folded, integrate, log_jacobian, resample_field, warp
from cortexgen.weights import load_generator

SMOOTHING = 2.0  # voxels, of log|J| where copies are looked for
FEW = 100  # samples for everything but volumes


class Fields:
    """A cohort of velocities and what is measured of it.

    Arguments:
        weights: shares of the template's classes on the velocities' grid.
        template: at the voxel size of the brains that are compared.
    """

    def __init__(self, velocities: Tensor, data: FieldDataModule, weights: Tensor, template: Template) -> None:
        steps, grid = data.info["IntegrationSteps"], data.grid
        self.velocities = velocities
        self.volumes = torch.cat([regional_volumes(v[None], weights, grid.voxel_volume, steps) for v in velocities])[
            :, 1:
        ]
        inverse = [integrate(v[None], steps, inverse=True) for v in velocities[:FEW]]
        self.log_jacobians = torch.cat([log_jacobian(u) for u in inverse])
        both = ([integrate(v[None], steps, inverse) for inverse in (False, True)] for v in velocities)
        self.folded = [any(bool(folded(u)) for u in pair) for pair in both]
        self.data, self.steps, self.template = data, steps, template

    def brains(self, count: int) -> Tensor:
        """The template warped by the first fields, `[N, 1, D, H, W]`."""
        template, origin = self.template, self.data.grid.torch_affine
        grid = template.grid
        fields = (integrate(v[None], self.steps) for v in self.velocities[:count])
        out = [warp(template.image[None], resample_field(u, origin, grid.shape, grid.torch_affine)) for u in fields]
        return torch.cat(out)


def ms_ssim_of(cohort: Fields) -> float:
    """Mean over 100 pairs of brains, in the template's brain box."""
    brains = cohort.brains(45)
    pairs = torch.combinations(torch.arange(len(brains)))
    chosen = pairs[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:100]].tolist()
    return sum(ms_ssim(brains[i], brains[j], cohort.template.mask) for i, j in chosen) / len(chosen)


def compare(name: str, seconds: float, drawn: Fields, train: Fields, held: Fields, mask: Tensor) -> dict[str, object]:
    """One row of the table."""
    d, ratio = cohens_d(train.volumes, drawn.volumes), sd_ratio(train.volumes.log(), drawn.volumes.log())
    few = drawn.velocities[:FEW]
    apart = pairwise_distances(few, few).sum() / (len(few) * (len(few) - 1))
    cover = precision_and_coverage(
        pairwise_distances(train.velocities, few), pairwise_distances(train.velocities, train.velocities)
    )
    spread = log_jacobian_spread(train.log_jacobians, drawn.log_jacobians, mask)
    copies = memorization(train.log_jacobians, held.log_jacobians, drawn.log_jacobians, SMOOTHING, mask=mask)
    return {
        "generator": name,
        "samples": len(drawn.volumes),
        "seconds a field": round(seconds, 2),
        "folded share": sum(drawn.folded) / len(drawn.folded),
        "classes with |d| < 0.2": int((d.value.abs() < 0.2).sum()),
        "largest |d|": float(d.value.abs().max()),
        "classes with SD ratio 0.8-1.25": int(((ratio.value > 0.8) & (ratio.value < 1.25)).sum()),
        "SD ratios": f"{float(ratio.value.min()):.2f}-{float(ratio.value.max()):.2f}",
        "median SD ratio of log|J|": float(spread.nanmedian()),
        "MS-SSIM": ms_ssim_of(drawn),
        "energy score, held out": float(pairwise_distances(held.velocities, few).mean() - apart / 2),
        "precision": cover.precision,
        "coverage": cover.coverage,
        "expected coverage": expected_coverage(len(train.velocities), len(few)),
        "nearest subject, against held out": copies.ratio,
        "copies": int(copies.copies.sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--held-out", help="subjects that the weights haven't seen, comma-separated")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--sampler", default="dpm++")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corrections", type=lambda t: [float(x) for x in t.split(",")], default=[0.5, 0.0])
    parser.add_argument("--spacing", type=float, help="of the weights' training, where FIELDS are finer")
    parser.add_argument("--aged", type=int, default=200, help="fields drawn for people of known age")
    parser.add_argument("--people", choices=("val", "train"), default="val", help="who they are")
    chosen = parser.parse_args()
    held_out = chosen.held_out.split(",") if chosen.held_out else None
    data = FieldDataModule(chosen.fields, val_subjects=held_out, spacing=chosen.spacing)
    data.setup("fit")
    template = data.template
    coarse = template.to(template.grid.at_spacing(2.0))
    weights = volume_weights(template.labels, template.grid, data.grid, len(template.classes))
    mask = weights[1:].sum(dim=0) > 0.5
    train, held = (
        Fields(torch.stack([data.velocity_of(s) for s in data.side(side)]), data, weights, coarse)
        for side in ("train", "val")
    )
    print(f"MS-SSIM of the real fields: {ms_ssim_of(train):.4f}", flush=True)
    generators: dict[str, Callable[[int], Tensor]] = {}
    module = load_generator(chosen.checkpoint)
    module.steps, module.sampler, module.sample_seed = chosen.steps, chosen.sampler, chosen.seed

    def diffusion(correction: float, **conditions: object) -> Callable[[int], Tensor]:
        def draw(k: int) -> Tensor:
            module.correction = correction
            with autocast(module.device, "auto"):
                return module.sample(k, conditions=conditions)

        return draw

    for correction in chosen.corrections:
        generators[f"diffusion, correction {correction:g}"] = diffusion(correction)
    classical = StatisticalDeformationModel(data)
    classical.sample_seed = chosen.seed
    generators["deformation model (PCA)"] = classical.sample
    rows, volumes = [compare("held-out subjects", 0.0, held, train, held, mask)], []
    for name, draw in generators.items():
        start = time.monotonic()
        velocities = torch.stack([draw(k) for k in range(chosen.samples)])
        seconds = (time.monotonic() - start) / chosen.samples
        drawn = Fields(velocities, data, weights, coarse)
        rows.append(compare(name, seconds, drawn, train, held, mask))
        print(rows[-1], flush=True)
        d, ratio = cohens_d(train.volumes, drawn.volumes), sd_ratio(train.volumes.log(), drawn.volumes.log())
        for k, label in enumerate(template.classes[1:]):
            row = {"generator": name, "class": label}
            for what, estimate in (("d", d), ("SD ratio", ratio)):
                row |= {what: float(estimate.value[k]), f"{what} low": float(estimate.low[k])}
                row |= {f"{what} high": float(estimate.high[k])}
            volumes.append(row)
        write_tsv(chosen.out / "generators.tsv", rows)
        write_tsv(chosen.out / "volumes.tsv", volumes)
    people = [scan.covariates for scan in data.side(chosen.people)]
    asked = [people[k % len(people)] for k in range(chosen.aged)]
    given = [{name: row[name] for name in module.encoder.specs if row.get(name) is not None} for row in asked]
    drawn = torch.stack([diffusion(chosen.corrections[0], **row)(k) for k, row in enumerate(given)])
    real = People.of({"train": train, "val": held}[chosen.people].volumes, people)
    found = age_rows(template.classes[1:], real, People.of(Fields(drawn, data, weights, coarse).volumes, asked))
    for name, rows in found.items():
        caption, columns = TABLES[name]
        table = Table([{"set": next(iter(generators)), **row} for row in rows], columns, caption)
        table.write(chosen.out / name)
        print(table.to_markdown() if name != "age_curves" else f"{chosen.out / name}.md", flush=True)


if __name__ == "__main__":
    main()
