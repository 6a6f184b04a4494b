"""Memory that a process needs for what stage 2 makes of its fields before training, and time of a step, run by hand.

    python tests/benchmarks/memory.py [--subjects 64,128] [--rows 1350,2700] [--spacing 1] [--work 4] [--target 2700]

Makes cohorts of smooth random velocities at half the resolution of the template at that spacing, mirrored, with the
shipped preset's scaling, modes and folds, given age, sex, brain volume and cohort, and prints a process's peak resident
memory after each part, which doesn't depend on their number as soon as there are as many fields as modes. `--work` is
stage 2's `--data.spacing`. A second table has many small fields, for what grows with the square of their number and is
given back before the modes are made; the line below extrapolates that to the target. The last table has processor
milliseconds of a training step of a small network, loading and prior and all, with few and with many small fields.
"""

import argparse
import json
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from lightning import Callback, Trainer

from cortexgen.atlas.template import load_template
from cortexgen.data.field_priors import FieldPriors
from cortexgen.data.field_statistics import field_statistics
from cortexgen.data.fields import FieldDataModule
from cortexgen.diffusion import fit_priors
from cortexgen.io import write_field
from cortexgen.io.bids import sidecar, write_tsv
from cortexgen.modules import FieldDiffusionModule
from cortexgen.spatial import antialias

MODES, FOLDS = 96, 5
COVARIATES = ["age", "sex", "brain_volume_ml", "cohort"]
STEPS, SMALL = 12, 4.0  # of training that are timed; spacing in mm of the template whose fields are small


def peak() -> float:
    """Of this process so far, in GB."""
    status = Path("/proc/self/status")
    if status.is_file():  # a process started by another one counts the other's memory in getrusage
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def make(root: Path, subjects: int, spacing: float) -> None:
    """A registered cohort of made fields."""
    template = load_template()
    image_grid = template.grid.at_spacing(spacing) if spacing > min(template.grid.spacing) else template.grid
    grid = image_grid.coarse(2)
    info = {"Template": template.name, "TemplateHash": template.hash, "IntegrationSteps": 7}
    for k in range(subjects):
        noise = torch.randn(1, 3, *(n // 8 + 2 for n in grid.shape), generator=torch.Generator().manual_seed(k))
        field = torch.nn.functional.interpolate(noise, grid.shape, mode="trilinear")
        path = root / f"sub-{k:04d}" / "anat" / f"sub-{k:04d}_desc-velocity_field.nii.gz"
        write_field(path, antialias(field, (4, 4, 4))[0], grid)
        sidecar(path).write_text(json.dumps(info | {"ImageGrid": image_grid.to_dict()}))
    values = ((20 + k % 60, "FM"[k % 2], 1200 + 7 * k % 400, "ab"[k % 3 // 2]) for k in range(subjects))
    names = ["participant_id", *COVARIATES]
    rows = [dict(zip(names, (f"sub-{k:04d}", *row), strict=True)) for k, row in enumerate(values)]
    write_tsv(root / "participants.tsv", rows)


def fields(root: Path, work: float | None) -> FieldDataModule:
    """The data module of a made cohort."""
    how = {"cache": "disk", "cache_dir": root / "cache", "spacing": work, "batch_size": 4}
    data = FieldDataModule(root, val_subjects=["sub-0000"], **how)
    data.setup("fit")
    return data


def whole(root: Path, work: float | None) -> dict[str, float]:
    """Peaks after each part of one process, and its seconds."""
    torch.set_num_threads(1)
    out, start = {"start": peak()}, time.perf_counter()
    data = fields(root, work)
    out["fields"] = peak()
    found = field_statistics(data, COVARIATES, center=True, each_voxel=True)
    out["statistics"] = peak()
    FieldPriors.fit(data, found, MODES, FOLDS)
    return out | {"priors": peak(), "seconds": time.perf_counter() - start}


class Times(Callback):
    """Processor seconds at the end of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.process_time())


def step(root: Path) -> dict[str, float]:
    """Median processor milliseconds of a training step."""
    torch.set_num_threads(1)
    times = Times()
    small = {"width": 8, "multipliers": (1,), "spatial_attention": ("none",), "patch": 2}
    prior = {"prior_modes": MODES, "cross_fit": FOLDS, "scaling": "voxel", "levels": (-14, 4)}
    module = FieldDiffusionModule(covariates=COVARIATES, **small, **prior)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_steps=STEPS, limit_val_batches=0, callbacks=[times], **off)
    trainer.fit(module, datamodule=fields(root, 2 * 2 * SMALL))
    laps = [b - a for a, b in zip(times.ends[1:], times.ends[2:], strict=False)]
    return {"ms a step": 1000 * statistics.median(laps), "peak": peak()}


def square(rows: int) -> dict[str, float]:
    """Peak of the priors of so many fields of a few voxels."""
    torch.set_num_threads(1)
    start, before = time.perf_counter(), peak()
    fields = (torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(rows))
    fit_priors(fields, [k // 2 % FOLDS for k in range(rows)], MODES)
    return {"start": before, "priors": peak(), "seconds": time.perf_counter() - start}


def alone(function, *args):  # type: ignore[no-untyped-def]
    """Run in a fresh process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", default="64,128")
    parser.add_argument("--rows", default="1350,2700")
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--work", type=float)
    parser.add_argument("--steps", default="64,2700", help="subjects of the last table")
    parser.add_argument("--target", type=int, default=2700)
    options = parser.parse_args()
    found = {}
    for name, sizes in (("subjects", options.subjects), ("rows", options.rows), ("steps", options.steps)):
        for size in map(int, filter(None, sizes.split(","))):
            with TemporaryDirectory() as folder:
                root = Path(folder)
                if name != "rows":
                    make(root, size, options.spacing if name == "subjects" else SMALL)
                jobs = {"subjects": (whole, root, options.work), "rows": (square, size), "steps": (step, root)}
                found[name] = size, alone(*jobs[name])
            print(f"{size} {name}", *(f"{k} {v:.2f}" for k, v in found[name][1].items()), sep="\t", flush=True)
    if not {"subjects", "rows"} <= found.keys():
        return
    (_, large), (rows, small) = found["subjects"], found["rows"]
    squares = large["statistics"] + (small["priors"] - small["start"]) * (2 * options.target / rows) ** 2
    top = max(large["priors"], squares)
    print(f"{top:.2f} GB at {options.target} subjects: first {squares:.2f} for the squares, then {large['priors']:.2f}")


if __name__ == "__main__":
    main()
