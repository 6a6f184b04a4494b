"""Memory that a process needs for what stage 2 makes of its fields before training, run by hand.

    python tests/benchmarks/memory.py [--subjects 64,128] [--rows 1350,2700] [--spacing 1] [--target 2700]

Makes cohorts of smooth random velocities at half the resolution of the template at that spacing, mirrored, with the
shipped preset's scaling, covariates, modes and folds, and prints a process's peak resident memory after each step,
which doesn't depend on their number as soon as there are as many fields as modes. A second table has many small
fields, for what grows with the square of their number and is given back before the modes are made. The last line
extrapolates that to the target.
"""

import argparse
import json
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from cortexgen.atlas.template import load_template
from cortexgen.data.field_priors import FieldPriors
from cortexgen.data.field_statistics import field_statistics
from cortexgen.data.fields import FieldDataModule
from cortexgen.diffusion import fit_priors
from cortexgen.io import write_field
from cortexgen.io.bids import sidecar, write_tsv
from cortexgen.spatial import antialias

MODES, FOLDS = 96, 5


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
    rows = [{"participant_id": f"sub-{k:04d}", "age": 20 + k % 60, "sex": "FM"[k % 2]} for k in range(subjects)]
    write_tsv(root / "participants.tsv", rows)


def whole(root: Path) -> dict[str, float]:
    """Peaks after each step of one process, and its seconds."""
    torch.set_num_threads(1)
    out, start = {"start": peak()}, time.perf_counter()
    data = FieldDataModule(root, val_subjects=["sub-0000"], cache="disk", cache_dir=root / "cache")
    data.setup("fit")
    out["fields"] = peak()
    statistics = field_statistics(data, ["age", "sex"], center=True, each_voxel=True)
    out["statistics"] = peak()
    FieldPriors.fit(data, statistics["mean"], statistics["scale"], MODES, FOLDS)
    return out | {"priors": peak(), "seconds": time.perf_counter() - start}


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
    parser.add_argument("--target", type=int, default=2700)
    options = parser.parse_args()
    found = {}
    for name, sizes in (("subjects", options.subjects), ("rows", options.rows)):
        for size in map(int, sizes.split(",")):
            with TemporaryDirectory() as folder:
                if name == "subjects":
                    make(Path(folder), size, options.spacing)
                found[name] = size, alone(*((whole, Path(folder)) if name == "subjects" else (square, size)))
            print(f"{size} {name}", *(f"{k} {v:.2f}" for k, v in found[name][1].items()), sep="\t", flush=True)
    (_, large), (rows, small) = found["subjects"], found["rows"]
    squares = large["statistics"] + (small["priors"] - small["start"]) * (2 * options.target / rows) ** 2
    top = max(large["priors"], squares)
    print(f"{top:.2f} GB at {options.target} subjects: first {squares:.2f} for the squares, then {large['priors']:.2f}")


if __name__ == "__main__":
    main()
