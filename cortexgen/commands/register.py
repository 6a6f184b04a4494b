"""`cortexgen register`: the template to anyone's T1w, or any image to any other."""

from functools import partial
from pathlib import Path
from typing import Any

from cortexgen.atlas.fitting import fitted_classes
from cortexgen.atlas.template import MNI152, load_template
from cortexgen.clock import Stopwatch
from cortexgen.commands import listed
from cortexgen.commands.rehearsal import rehearse
from cortexgen.data.cohort import Scan, choose_scans, find_scans
from cortexgen.data.cohorts import Roots, all_scans, folders_of, read_cohorts
from cortexgen.data.registered import Record, registered_rows
from cortexgen.errors import UserError
from cortexgen.io import HeaderChoice
from cortexgen.io.bids import source_hash
from cortexgen.io.header import Form
from cortexgen.io.output import examine_run, open_run
from cortexgen.io.paths import label
from cortexgen.metrics.cortex import CORTEX, WHITE
from cortexgen.registration.cohort import Moving, RegisterScans, register_cohort
from cortexgen.registration.registrar import Affine, Registrar
from cortexgen.runner.cohort import Runner
from cortexgen.runner.precision import Precision
from cortexgen.runner.verbosity import say


def register(
    images: Roots,
    out: Path,
    moving: Path | None = None,
    moving_labels: Path | None = None,
    labels: str = "*_dseg.nii*",
    pattern: str = "*_T1w.nii*",
    participants: str | None = None,
    sessions: str | None = None,
    method: str = "network",
    checkpoint: Path | None = None,
    template: str = MNI152,
    template_labels: Path | None = None,
    label_table: Path | None = None,
    affine: Affine = "auto",
    refine: int | None = None,
    refine_intensity: float = 0.0,
    fit_labels: bool = False,
    frames: int = 0,
    field_spacing: float = 0.0,
    mirror: bool = False,
    nearest_labels: bool = False,
    trust: Form | None = None,
    orientation: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    jobs: int = 1,
    scheduler: str | None = None,
    dry_run: bool = False,
) -> None:
    """Register the template to T1w images: fields for ITK and ANTs, the warped template, labels and volumes.

    The images are skull-stripped T1w of any voxel size, orientation and field of view. One that isn't in template
    space is brought there by an affine, which is part of the exported fields: results lie on the image's own grid.
    Weights come with the package. A run that was interrupted goes on where it stopped when called again, and redoes
    what was made of an image or labels that have changed since.

    Args:
        images: A NIfTI file, a folder of them, or a BIDS data set (also written --fixed); or a list of folders,
            '[site-a,site-b]', each a cohort, which tables then name.
        out: Folder to write to, as BIDS derivatives; registration.tsv has a row an image.
        moving: Register this image onto the others instead of the template.
        moving_labels: Its dseg, to be warped along.
        labels: File name pattern of the images' own dseg in a BIDS data set, for Dice.
        pattern: File name pattern of the images in a BIDS data set.
        participants: Subjects to take, comma-separated, with or without sub-.
        sessions: Sessions to take, likewise.
        method: network (the package's weights, or others); prior (the same, refined towards the fields of real people);
            affine, greedy or syn (ANTs), without weights; pirate or pirate+, of a checkpoint; or another package's.
        checkpoint: Other weights: a .ckpt of `cortexgen fit`, a .safetensors of `cortexgen export`, or the name of some
            that come with the package, register-ds002748-2mm.
        template: The template of those weights: MNI152NLin2009aSym, or a NIfTI file.
        template_labels: The dseg of a template file.
        label_table: Names of its classes, or of the moving image's, a tab-separated file with columns index and name.
        affine: Run the affine to template space where it is needed, always, or never.
        refine: Gradient steps on each pair after the network's answer, on every voxel: 6 unless given, 20 with prior;
            20 take longer and follow the images further, 0 leave the answer, whose velocities are coarser, as it is.
            With pirate its iterations, 500 unless given.
        refine_intensity: Weight of the squared difference of intensities in those steps, such as 8: the warped template
            looks more like the image then, and the labels overlap less.
        fit_labels: Also write the warped labels with the cortex's boundaries moved to where the image has them, as
            desc-fitted_dseg; volumes in the table stay those of the warped ones. Needs classes named
            Cerebral-Cortex and Cerebral-White-Matter (--label_table, for another moving image's).
        frames: Also write so many frames of the continuous deformation, as a 4D image and an animated picture.
        field_spacing: Write the displacement fields on grids of so many millimetres, if these are coarser than the
            image's: twice its voxel size makes files of a fifth, and what they warp hardly differs. 0 is the
            image's own grid.
        mirror: Average the answers to the pair and to its mirror image; the weights' grid must be symmetric.
        nearest_labels: Take warped labels from the nearest voxel instead of the largest interpolated indicator.
        trust: The one to take, sform or qform, where a file's two differ, which is refused unless it is given.
        orientation: Where the axes of files run to (LAS, for instance) whose header doesn't say it, as in Analyze 7.5;
            such files are refused unless it is given.
        device: cpu, cuda, cuda:1, or auto.
        precision: Of the network: bf16, 32, or auto (bf16 where it is fast).
        jobs: Images at a time on this machine; with more than one, each in a process of its own.
        scheduler: Address of a Dask scheduler whose workers take the images; needs `cortexgen[cluster]` and folders
            that all of them see.
        dry_run: Say how many would be done, are done before, and can't be used and why, and write nothing; the exit
            status is 1 where the run's would be for its inputs.
    """
    watch = Stopwatch()
    for name, value in (
        ("refine", refine or 0),
        ("refine_intensity", refine_intensity),
        ("frames", frames),
        ("field_spacing", field_spacing),
    ):
        if not 0 <= value < float("inf") or (name == "frames" and value == 1):
            raise UserError(f"--{name}: expected 0 or more{', not 1' * (name == 'frames')}, got {value}")
    if fit_labels and moving and not moving_labels:
        raise UserError("--fit_labels: the moving image has no labels; give --moving_labels")
    if moving_labels and not moving:
        raise UserError("--moving_labels: give --moving too")
    choice, runner = HeaderChoice(trust, orientation), Runner(jobs, scheduler)
    examine_run(out, "registration")
    original = load_template(template, template_labels, None if moving else label_table, trust)
    given: dict[str, Any] = {"checkpoint": checkpoint, "refine": refine, "mirror": mirror or None}
    given["refine_intensity"] = refine_intensity or None
    entity = label(moving.name.split(".")[0])[:64] or "moving" if moving else ""  # in the names of files
    other = Moving(moving, moving_labels, entity, label_table) if moving else None
    how = {"device": device, "precision": precision, "affine": affine, "choice": choice, "nearest": nearest_labels}
    how |= {"field_spacing": field_spacing}
    work = RegisterScans(Path(out).resolve(), method, given, original, other, frames, fit_labels, **how)
    registrar, prepared = work.prepared()
    classes = prepared.space.classes if prepared else original.classes
    if fit_labels and fitted_classes(classes) is None:
        few = ", ".join(classes[:4]) or "none"
        raise UserError(f"--fit_labels: needs classes {CORTEX} and {WHITE}, named by --label_table; got {few}")
    folders = folders_of(images)
    scans = all_scans(read_cohorts(folders, lambda folder: find_scans(folder, pattern, labels)))
    scans = choose_scans(scans, listed(participants), listed(sessions))
    made_by = registrar.registration.describe()
    options = made_by["Parameters"] | {
        "frames": frames,
        "field_spacing": field_spacing,
        "nearest_labels": nearest_labels,
        "affine": affine,
    }
    options |= {"fit_labels": True} if fit_labels else {}
    options |= {"moving": source_hash(moving) if moving else original.name}
    options |= {"trust": choice.trust, "orientation": choice.orientation}
    if moving:
        files = {"moving_labels": moving_labels, "label_table": label_table}
        options |= {name: source_hash(path) for name, path in files.items() if path}
    made_by |= {"Template": original.hash, "Parameters": options}
    if dry_run:
        examine_run(out, "registration", made_by, folders.values())
        checks = {scan.name: partial(_done, scan, Path(out).resolve(), registrar) for scan in scans}
        return rehearse("register", "image", checks)
    open_run(out, "registration", made_by, folders.values())
    before = registered_rows(out)
    failures = register_cohort(scans, work, runner)
    if failures:
        rest = "" if len(failures) == len(scans) else ", the others are done"
        name, reason = next(iter(failures.items()))
        raise UserError(f"{len(failures)} of {len(scans)} image(s) failed{rest}; {name}: {reason}")
    made = sum(row != before.get(name) for name, row in registered_rows(out).items())
    wall, processor = watch.spent()
    here = "" if scheduler or not made else f", {processor / made:.2f} processor seconds an image, start-up included"
    say(f"{len(scans)} image(s) registered ({made} now) in {wall:.1f} s{here}: {out / 'registration.tsv'}")


def _done(scan: Scan, out: Path, registrar: Registrar) -> bool:
    """Whether an image was registered before; otherwise it is read. Whether an affine can be found isn't tried.

    Raises:
        UserError: if it can't be used.
    """
    if Record(out, scan).done() is not None:
        return True
    registrar.check(scan.image, scan.labels)
    return False
