"""Registrations compared on the same subjects: the affine alone, one pass, refinement, ANTs SyN, VoxelMorph.

    python tests/benchmarks/registration.py COHORT OUT --subjects 05,10,15 --vxm_steps 1500

COHORT holds skull-stripped T1w in template space with their dsegs, on one grid. The subjects should be those that the
weights were not trained on; VoxelMorph is trained here on all the others, without labels. Every method maps the
template to a subject on that grid, on the CPU with the same number of threads, and leaves its forward displacement in
OUT/METHOD. All scores come from that field alone: Dice of the template's labels carried over by `warp_labels`, SSIM and
PSNR of its warped image over the whole grid, and voxel cubes that fold.

Seconds run from two images in memory, with networks loaded, to the displacements both ways; cortexgen's include the
check for folds and their removal, SyN's the files that ANTs passes its transforms through. Peak memory is the largest
resident set of the method's own process before scoring, with nothing taken off: that of affine_only is what Python,
PyTorch, the template and the images need. `--vxm_steps` pairs take some seconds each on a core.

Writes OUT/registration.tsv, a row a method and subject, and OUT/summary.tsv, a row a method: means of the scores, the
median of the seconds, the largest peak. SyN and VoxelMorph need `pip install antspyx voxelmorph`. SyN's fields and
VoxelMorph's weights in OUT are used again by a run with the same settings.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from itertools import chain, islice, repeat
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from cortexgen.atlas.template import MNI152
from cortexgen.data.registration import RegistrationDataModule, load_labels, load_scan
from cortexgen.errors import UserError
from cortexgen.io import Grid, read_field, write_field, write_json, write_volume
from cortexgen.io.bids import Row, sha256, sidecar, write_tsv
from cortexgen.losses import gradient_energy, local_ncc
from cortexgen.metrics.overlap import dice
from cortexgen.metrics.similarity import psnr, ssim
from cortexgen.registration.propagation import Propagation, Space
from cortexgen.runner.precision import autocast
from cortexgen.spatial import folded, identity, resample, resample_field, warp, warp_labels
from cortexgen.weights import load

Register = Callable[[Tensor], Tensor]  # from an image [1, D, H, W] to the displacement onto it, [1, 3, D, H, W]
CPU = torch.device("cpu")
SYN = {"type_of_transform": "SyNOnly", "initial_transform": "Identity", "syn_metric": "CC", "syn_sampling": 2}
SYN |= {"reg_iterations": (40, 30, 15), "random_seed": 1}
VXM = {"features": (16, 32, 32, 32), "lr": 3e-4, "smoothness": 1.0}


class Bench:
    """What the methods share: the options, the cohort (working grid: the brain's box), the template on its grid."""

    def __init__(self, options: argparse.Namespace, stage: str = "predict") -> None:
        torch.set_num_threads(options.threads)
        image, labels = options.template
        self.options = options
        self.data = RegistrationDataModule(options.cohort, image, labels, crop="brain", val_subjects=options.subjects)
        self.data.setup(stage)
        self.grid = self.data.native
        self.template = self.data.original.to(self.grid)

    def score(self, image: Tensor, labels: Tensor, displacement: Tensor) -> Row:
        """How well the template, warped by a displacement, fits an image and its labels, `[1, D, H, W]`."""
        warped = warp(self.template.image[None], displacement, padding="zeros")[0]
        positions, classes = identity(image.shape[1:]) + displacement, len(self.template.classes)
        carried, _ = warp_labels(self.template.labels[None], positions, classes)
        overlap = float(dice(carried[0], labels, classes).nanmean())
        cubes = int(folded(displacement)[0])
        return {"dice": overlap, "ssim": ssim(warped, image), "psnr": psnr(warped, image), "folded_cubes": cubes}


def affine_only(bench: Bench) -> Register:
    """Nothing is done: the images are in template space."""
    return lambda image: torch.zeros(1, 3, *image.shape[1:])


def one_pass(bench: Bench, refine: int = 0) -> Register:
    """The network's answer, refined by so many steps if any, unfolded, on the cohort's grid."""
    module, original = load(bench.options.checkpoint), bench.data.original
    if original.hash != module.contract["template"]["hash"]:
        raise UserError(f"the weights were trained with another template than {original.name}")
    module.mirror = True
    grid, eye = Grid.from_dict(module.contract["grid"]), torch.eye(4, dtype=torch.float64)
    moving = original.to(grid).image[None]
    template = Space(original.name, bench.template.image, None, bench.grid, bench.grid, eye)

    def register(image: Tensor) -> Tensor:
        fixed = resample(image[None], bench.grid.torch_affine, grid.shape, grid.torch_affine)
        with autocast(CPU, "auto"):
            velocity, _ = module.solve(moving, fixed, refine)
        subject = Space("T1w", image, None, bench.grid, bench.grid, eye)
        maps = Propagation(template, subject, grid.coarse(module.h.field_downsample), module.h.integration_steps)
        return maps.run(velocity.float()).displacement

    return register


def syn(bench: Bench) -> Register:
    """ANTs' symmetric normalization by cross-correlation."""
    import ants

    def register(image: Tensor) -> Tensor:
        with TemporaryDirectory() as folder:
            images = []
            for name, volume in (("fixed", image), ("moving", bench.template.image)):
                write_volume(Path(folder, f"{name}.nii"), volume, bench.grid)
                images.append(ants.image_read(f"{folder}/{name}.nii"))
            found = ants.registration(*images, outprefix=f"{folder}/", **SYN)
            return read_field(Path(found["fwdtransforms"][0]))[0][None]

    return register


class VoxelMorph(torch.nn.Module):
    """VoxelMorph's diffeomorphic network, on images padded to the size that its levels need."""

    def __init__(self) -> None:
        super().__init__()
        from voxelmorph.nn.models import VxmPairwise

        self.network = VxmPairwise(3, 1, 1, nb_features=VXM["features"], integration_steps=7)

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity of a pair `[1, 1, D, H, W]` and its displacement, both `[1, 3, D, H, W]`."""
        (d, h, w), multiple = fixed.shape[2:], 2 ** len(VXM["features"])
        padding = [0, -w % multiple, 0, -h % multiple, 0, -d % multiple]
        with autocast(CPU, "auto"):
            moving, fixed = F.pad(moving, padding), F.pad(fixed, padding)
            velocity = self.network(moving, fixed, return_field_type="velocity").float()
        displacement = self.network.velocity_field_integrator(velocity)
        if not self.training:  # the way back, which every method gives
            self.network.velocity_field_integrator(-velocity)
        return velocity[:, :, :d, :h, :w], displacement[:, :, :d, :h, :w]


def train_voxelmorph(options: argparse.Namespace) -> None:
    """Train on the cohort's other subjects for `--vxm_steps` steps of one pair, unless OUT has these weights."""
    path, names = options.out / "voxelmorph.pt", ("cohort", "template", "subjects", "vxm_steps")
    made_by = str(VXM | {name: str(getattr(options, name)) for name in names})
    if path.is_file() and torch.load(path)["made_by"] == made_by:
        return
    torch.manual_seed(0)
    bench, model = Bench(options, "fit"), VoxelMorph()
    optimizer = torch.optim.Adam(model.parameters(), VXM["lr"])
    pairs = islice(chain.from_iterable(repeat(bench.data.train_dataloader())), options.vxm_steps)
    for pair in tqdm(pairs, "training VoxelMorph", options.vxm_steps):
        velocity, displacement = model(pair["moving"], pair["fixed"])
        similarity = local_ncc(warp(pair["moving"], displacement), pair["fixed"])
        optimizer.zero_grad()
        (VXM["smoothness"] * gradient_energy(velocity) - similarity).backward()
        optimizer.step()
    torch.save({"made_by": made_by, "state": model.state_dict()}, path)


def voxelmorph(bench: Bench) -> Register:
    """VoxelMorph as trained here, in the same box as cortexgen."""
    model, box, moving = VoxelMorph().eval(), bench.data.grid.torch_affine, bench.data.template.image[None]
    model.load_state_dict(torch.load(bench.options.out / "voxelmorph.pt")["state"])

    def register(image: Tensor) -> Tensor:
        _, displacement = model(moving, resample(image[None], bench.grid.torch_affine, moving.shape[2:], box))
        return resample_field(displacement, box, bench.grid.shape, bench.grid.torch_affine)

    return register


METHODS: dict[str, Callable[[Bench], Register]] = {
    "affine_only": affine_only,
    "one_pass": one_pass,
    "refined": lambda bench: one_pass(bench, bench.options.refine),
    "syn": syn,
    "voxelmorph": voxelmorph,
}


@torch.no_grad()
def measure(method: str, options: argparse.Namespace) -> list[Row]:
    """Register every subject by one method, then score its fields; a row a subject."""
    bench = Bench(options)
    register, scans = METHODS[method](bench), bench.data.side("val")
    paths = [options.out / method / f"{scan.name}_xfm.nii.gz" for scan in scans]
    images = [load_scan(scan, bench.grid, bench.grid) for scan in scans]
    for scan, image, path in zip(scans, images, tqdm(paths, method), strict=True):
        made_by = str(SYN | {"threads": options.threads, "template": bench.template.hash, "image": sha256(scan.image)})
        if method == "syn" and sidecar(path).is_file() and json.loads(sidecar(path).read_text())["made_by"] == made_by:
            continue
        start = time.perf_counter()
        displacement = register(image)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        write_field(path, displacement[0], bench.grid)
        write_json(sidecar(path), {"made_by": made_by, "seconds": seconds, "peak_mib": peak})
    rows: list[Row] = []
    for scan, image, path in zip(scans, images, paths, strict=True):
        labels = load_labels(scan, bench.grid, bench.template)
        if labels is None:
            raise UserError(f"{scan.name} has no dseg to compare with")
        cost = json.loads(sidecar(path).read_text())
        row = {"method": method, "participant_id": scan.name, **bench.score(image, labels, read_field(path)[0][None])}
        rows.append(row | {"seconds": cost["seconds"], "peak_mib": cost["peak_mib"]})
    return rows


def in_child(function: Callable, *args: object) -> list[Row]:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def summarize(method: str, rows: list[Row]) -> Row:
    """The row of a method from those of its subjects."""
    means = {k: statistics.mean(r[k] for r in rows) for k in ("dice", "ssim", "psnr", "folded_cubes")}
    cost = {"seconds": statistics.median(r["seconds"] for r in rows), "peak_mib": max(r["peak_mib"] for r in rows)}
    return {"method": method, "subjects": len(rows), **means, **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--subjects", type=lambda t: t.split(","), required=True, help="to measure, held out: 05,10,15")
    parser.add_argument("--methods", type=lambda t: t.split(","), default=list(METHODS), help=",".join(METHODS))
    parser.add_argument("--checkpoint", type=Path, help="of cortexgen; the package's weights unless given")
    parser.add_argument("--template", nargs=2, default=(MNI152, None), metavar=("IMAGE", "DSEG"), help="another one")
    parser.add_argument("--refine", type=int, default=20, help="steps of the method refined")
    parser.add_argument("--vxm_steps", type=int, default=1500, help="training of VoxelMorph; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    methods = [m for m in METHODS if m in options.methods and (m != "voxelmorph" or options.vxm_steps)]
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    for method, module, package in (("syn", "ants", "antspyx"), ("voxelmorph", "voxelmorph", "voxelmorph")):
        if method in methods and find_spec(module) is None:
            parser.error(f"{method} needs {package}, which is no dependency of cortexgen: pip install {package}")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(options.threads)  # the children's
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    summary: dict[str, Row] = {}
    for method in methods:
        try:
            if method == "voxelmorph":
                in_child(train_voxelmorph, options)
            found = in_child(measure, method, options)
        except UserError as error:
            parser.exit(1, f"{method}: {error}\n")
        rows += found
        summary[method] = summarize(method, found)
        write_tsv(options.out / "registration.tsv", rows)
        write_tsv(options.out / "summary.tsv", summary.values())
    print("| method | Dice | SSIM | PSNR | folded cubes | seconds | peak MiB |\n|---|---|---|---|---|---|---|")
    for m, r in summary.items():
        scores = f"{r['dice']:.3f} | {r['ssim']:.3f} | {r['psnr']:.1f} | {r['folded_cubes']:g}"
        print(f"| {m} | {scores} | {r['seconds']:.2f} | {r['peak_mib']:.0f} |")
    if {"syn", "one_pass"} <= summary.keys():
        times = summary["syn"]["seconds"] / summary["one_pass"]["seconds"]
        print(f"\nSyN takes {times:.0f} times as long as one pass.")


if __name__ == "__main__":
    main()
