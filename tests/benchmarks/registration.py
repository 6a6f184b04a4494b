"""Registrations compared on the same held-out subjects: one pass, refinement, greedy, ANTs SyN, VoxelMorph.

    python tests/benchmarks/registration.py COHORT [COHORT ...] OUT --held-out-digits 05

A COHORT holds skull-stripped T1w in template space with their dsegs, on one grid; the subjects measured are those whose
number ends in 0 or 5, or `--subjects 05,IXI080`: they should be those that the weights were not trained on. VoxelMorph
is trained here on all the others, without labels.

Every method maps the template to a subject as its user would call it, on the CPU with the same number of threads, in
processes of their own. cortexgen's one_pass and refined are `cortexgen register FOLDER OUT` on a folder of all the
images, with `--refine 20` in the second and everything else at its default. The others are a process an image, which
reads the image and the template as NIfTI files on the cohort's grid, and writes the warp, the warped template and its
labels (peers.py). Seconds are those of the processor (user and system) that the whole call took, start of the program
included, divided by its images: cortexgen's start weighs less on twelve images than on two. Peak memory is the largest
resident set of a call.

All scores come from the forward displacement field that was written, alike for every method: Dice of the template's
labels carried over by `warp_labels`, 95th percentile of the Hausdorff distance of the cortex in mm, SSIM and PSNR of
the warped template over the whole grid, voxel cubes that fold, and SD of log |J| of this pull-back on the subject's
grid, in the voxels of the template's brain there (determinants below .001 counted as that).

Writes OUT/registration.tsv, a row a subject and method, and of these OUT/summary.tsv (means), OUT/differences.tsv (less
the references' scores of the same subjects, with a 95 % bootstrap interval over five subjects or more) and
OUT/ages.tsv, and prints these. What `pip install picsl-greedy antspyx voxelmorph` brings is no dependency of cortexgen;
`--methods` leaves some out. The other programs' fields in OUT are used again with the seconds that they took;
cortexgen's are made anew.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import registration_tables as tables
import torch
from peers import LABELS, MOVING, PEERS
from tqdm import tqdm

from cortexgen.atlas.template import MNI152, Template, load_template
from cortexgen.data.cohort import Scan, read_cohort
from cortexgen.data.loading import load_labels, load_scan
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.io import read_field, read_grid, write_json, write_volume
from cortexgen.io.bids import Row, sha256, transform, write_tsv
from cortexgen.io.labels import label_type
from cortexgen.metrics.overlap import dice
from cortexgen.metrics.similarity import psnr, ssim
from cortexgen.metrics.surface_distance import hd95
from cortexgen.spatial import folded, identity, log_jacobian, warp, warp_labels

OURS = ("one_pass", "refined")
METHODS = ("affine_only", *OURS, *PEERS)
CORTEX = "Cerebral-Cortex"
# A small process starts the call: the peak of a large one that does would count as the call's own.
LAUNCHER = """
import json, resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(json.dumps({"status": status, "seconds": used.ru_utime + used.ru_stime, "peak_mib": peak}))
"""


def call(command: list[object], log: Path) -> Row:
    """Run a program in a process of its own; returns its processor seconds and peak memory.

    Raises:
        UserError: if it fails, with the last line that it left in `log`.
    """
    with open(log, "wb") as file:
        launched = [sys.executable, "-c", LAUNCHER, *map(str, command)]
        cost: Row = json.loads(subprocess.run(launched, stdout=subprocess.PIPE, stderr=file, check=True).stdout)
    if status := cost.pop("status"):
        last = log.read_text(errors="replace").split("\n")[-2:]
        raise UserError(f"{log}: exit status {status}; {' '.join(last).strip()}")
    return cost


class Cohort:
    """A cohort's held-out subjects, and OUT/<its name> with what the methods read: images by links, the template."""

    def __init__(self, root: Path, template: Template, options: argparse.Namespace) -> None:
        scans = [scan for scan in read_cohort(root) if not scan.problem]
        chosen, digits = options.subjects, options.held_out_digits
        self.root, self.name, self.folder = root, root.resolve().name, options.out / root.resolve().name
        self.held_out = [s for s in scans if (s.subject[4:] in chosen if chosen else s.subject[-1] in digits)]
        self.scans = self.held_out[: options.limit]
        if not self.scans:
            raise UserError(f"{root}: none of the subjects to measure is among its {len(scans)} scans")
        self.grid = read_grid(self.scans[0].image)
        self.template = template.to(self.grid)
        if self.template.labels is None:
            raise UserError(f"{template.name} has no labels to carry over")
        images = self.folder / "images"
        shutil.rmtree(images, ignore_errors=True)
        images.mkdir(parents=True)
        self.images = {scan.name: f"images/{scan.name}_T1w{''.join(scan.image.suffixes[-2:])}" for scan in self.scans}
        for scan in self.scans:
            (self.folder / self.images[scan.name]).symlink_to(scan.image.resolve())
        write_volume(self.folder / MOVING, self.template.image, self.grid)
        kind = label_type(len(self.template.classes))
        write_volume(self.folder / LABELS, self.template.labels, self.grid, kind)

    def score(self, scan: Scan, field: Path | None) -> Row:
        """How well the template, warped by the displacement in a file, fits a scan; without one, as it is."""
        image, labels = load_scan(scan, self.grid, self.grid), load_labels(scan, self.grid, self.template)
        if labels is None:
            raise UserError(f"{scan.name} has no dseg to compare with")
        template, classes = self.template, len(self.template.classes)
        displacement, grid = read_field(field) if field else (torch.zeros(3, *self.grid.shape), self.grid)
        if not grid.matches(self.grid):
            raise UserError(f"{field}: its grid is {grid}; the cohort's is {self.grid}")
        displacement = displacement[None]
        warped = warp(template.image[None], displacement, padding="zeros")[0]
        carried = warp_labels(template.labels[None], identity(self.grid.shape) + displacement, classes)[0][0]
        overlap = dice(carried, labels, classes)
        row: Row = {"dice": float(overlap.nanmean()), "ssim": ssim(warped, image), "psnr": psnr(warped, image)}
        if CORTEX in template.classes:
            cortex = [(each == template.classes.index(CORTEX)).long() for each in (carried, labels)]
            row["hd95_cortex"] = float(hd95(*cortex, 2, self.grid.spacing))
        row["folded_cubes"] = int(folded(displacement))
        row["sd_log_jacobian"] = float(log_jacobian(displacement)[template.mask[None]].std())
        row |= {f"dice_{name}": float(d) for name, d in zip(template.classes[1:], overlap, strict=True)}
        return {name: None if value != value else value for name, value in row.items()}


def ours(cohort: Cohort, method: str, options: argparse.Namespace) -> dict[str, tuple[Path, Row]]:
    """Each subject's field and cost by cortexgen, all in one call."""
    out = (cohort.folder / method).resolve()
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "cortexgen", "register", (cohort.folder / "images").resolve(), out]
    image, labels = options.template
    given = {"checkpoint": options.checkpoint, "template": image if labels else None, "template_labels": labels}
    given["refine"] = options.refine if method == "refined" else None
    command += [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]
    print(f"{cohort.name}, {method}: {len(cohort.scans)} images ...", file=sys.stderr)
    cost = call(command, out.with_suffix(".log"))
    cost["seconds"] /= len(cohort.scans)
    return {scan.name: (transform(out, scan.name, cohort.template.name, "T1w"), cost) for scan in cohort.scans}


def peers(cohort: Cohort, method: str, options: argparse.Namespace) -> dict[str, tuple[Path, Row]]:
    """Each subject's field and cost by another program, a call a subject unless that was done."""
    peer, found = PEERS[method], {}
    made_by = {"package": f"{peer.package} {version(peer.package)}", "settings": str(peer.settings)}
    made_by |= {"threads": options.threads, "template": cohort.template.hash}
    (cohort.folder / method).mkdir(exist_ok=True)
    if method == "voxelmorph":
        import vxm

        others = [scan.subject for scan in cohort.held_out]
        data = RegistrationDataModule(cohort.root, *options.template, crop="brain", val_subjects=others)
        vxm.train(data, cohort.folder, options.vxm_steps)
        made_by["settings"] = sha256(cohort.folder / vxm.WEIGHTS)
    for scan in tqdm(cohort.scans, f"{cohort.name}, {method}"):
        stem = cohort.folder / method / scan.name
        record, key = stem.with_suffix(".json"), made_by | {"image": sha256(scan.image)}
        kept = json.loads(record.read_text()) if record.is_file() else {}
        if kept.get("made_by") != key:
            there = [cohort.folder.resolve(), cohort.images[scan.name], f"{method}/{scan.name}", options.threads]
            program = Path(__file__).with_name("peers.py")
            kept = {"made_by": key, "cost": call([sys.executable, program, method, *there], stem.with_suffix(".log"))}
            write_json(record, kept)
        found[scan.name] = Path(f"{stem}_xfm.nii.gz"), kept["cost"]
    return found


def measure(cohort: Cohort, method: str, options: argparse.Namespace) -> list[Row]:
    """Register every subject of a cohort by one method, then score its fields; a row a subject."""
    nothing = None, {"seconds": None, "peak_mib": None}
    how = {"affine_only": lambda *_: {s.name: nothing for s in cohort.scans}} | dict.fromkeys(OURS, ours)
    found, rows = how.get(method, peers)(cohort, method, options), []
    for scan in tqdm(cohort.scans, f"{cohort.name}, scores of {method}"):
        field, cost = found[scan.name]
        row = {"cohort": cohort.name, "method": method, "participant_id": scan.name, "age": scan.covariates.get("age")}
        rows.append(row | cohort.score(scan, field) | cost)
    return rows


def parse() -> argparse.Namespace:
    """The options; exits with a line where something is wrong with them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohorts", type=Path, nargs="+", metavar="COHORT")
    parser.add_argument("out", type=Path, metavar="OUT")
    names = {"type": lambda text: text.split(",")}
    parser.add_argument("--subjects", **names, help="to measure, instead of --held-out-digits: 05,10,IXI080")
    parser.add_argument("--held-out-digits", default="05", help="last digits of the subjects to measure")
    parser.add_argument("--limit", type=int, help="measure so many subjects a cohort, the first")
    parser.add_argument("--methods", **names, default=list(METHODS), help=",".join(METHODS))
    parser.add_argument("--references", **names, help="of the methods, to compare with; greedy,syn unless given")
    parser.add_argument("--checkpoint", type=Path, help="of cortexgen; the package's weights unless given")
    parser.add_argument("--template", nargs=2, default=(MNI152, None), metavar=("IMAGE", "DSEG"), help="another one")
    parser.add_argument("--refine", type=int, default=20, help="steps of the method refined")
    parser.add_argument("--vxm_steps", type=int, default=1500, help="training of VoxelMorph; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.subjects = {name.removeprefix("sub-") for name in options.subjects or ()}
    if unknown := set(options.methods) - set(METHODS):
        parser.error(f"--methods: no {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    options.methods = [m for m in METHODS if m in options.methods and (m != "voxelmorph" or options.vxm_steps)]
    if absent := set(options.references or ()) - set(options.methods):
        parser.error(f"--references: {', '.join(sorted(absent))} not among the methods {', '.join(options.methods)}")
    options.references = options.references or ["greedy", "syn"]
    for method in set(options.methods) & set(PEERS):
        try:
            version(PEERS[method].package)
        except PackageNotFoundError:
            package = PEERS[method].package
            parser.error(f"{method} needs {package}, which is no dependency of cortexgen: pip install {package}")
    if len({root.resolve().name for root in options.cohorts}) < len(options.cohorts):
        parser.error("two cohorts of one name, which OUT's folders have")
    return options


def main() -> None:
    options = parse()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[name] = str(options.threads)  # the calls'
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    try:
        template = load_template(*options.template)
        cohorts = [Cohort(root, template, options) for root in options.cohorts]
        known = {scan.subject[4:] for cohort in cohorts for scan in cohort.held_out}
        if missing := sorted(options.subjects - known):
            raise UserError(f"--subjects: {', '.join(missing)} in none of the cohorts")
        for cohort in cohorts:
            for method in options.methods:
                rows += measure(cohort, method, options)
                write_tsv(options.out / "registration.tsv", rows)
    except UserError as error:
        sys.exit(f"registration.py: {error}")
    write_tsv(options.out / "summary.tsv", tables.summary(rows, options.references))
    write_tsv(options.out / "differences.tsv", tables.differences(rows, options.references))
    write_tsv(options.out / "ages.tsv", tables.ages(rows))
    print(tables.text(rows, options.references))


if __name__ == "__main__":
    main()
