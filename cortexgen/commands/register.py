"""`cortexgen register`: the template to anyone's T1w, or any image to any other."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from cortexgen.data.cohort import Scan, find_scans
from cortexgen.data.template import MNI152, load_template
from cortexgen.errors import UserError
from cortexgen.io import write_json
from cortexgen.io.bids import sha256
from cortexgen.modules.base import open_run
from cortexgen.modules.diffusemorph import DiffuseMorphModule
from cortexgen.modules.precision import Precision
from cortexgen.modules.registrar import Affine, Prepared, Registrar
from cortexgen.modules.registration_writer import row_path, write_registration, write_table
from cortexgen.weights import load


def register(
    images: Path,
    out: Path,
    moving: Path | None = None,
    moving_labels: Path | None = None,
    labels: str = "*_dseg.nii*",
    pattern: str = "*_T1w.nii*",
    checkpoint: Path | None = None,
    template: str = MNI152,
    template_labels: Path | None = None,
    label_table: Path | None = None,
    affine: Affine = "auto",
    refine: int = 0,
    refine_intensity: float = 8.0,
    frames: int = 0,
    mirror: bool = True,
    nearest_labels: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
) -> None:
    """Register the template to T1w images: fields for ITK and ANTs, the warped template, labels and volumes.

    The images are skull-stripped T1w of any voxel size, orientation and field of view. One that isn't in template
    space is brought there by an affine, which is part of the exported fields: results lie on the image's own grid.
    Weights come with the package. A run that was interrupted goes on where it stopped when called again.

    Args:
        images: A NIfTI file, a folder of them, or a BIDS data set (also written --fixed).
        out: Folder to write to, as BIDS derivatives; registration.tsv has a row an image.
        moving: Register this image onto the others instead of the template.
        moving_labels: Its dseg, to be warped along.
        labels: File name pattern of the images' own dseg in a BIDS data set, for Dice.
        pattern: File name pattern of the images in a BIDS data set.
        checkpoint: Other weights: a .ckpt of `cortexgen fit`, or a .safetensors of `cortexgen export`.
        template: The template of those weights: MNI152NLin2009aSym, or a NIfTI file.
        template_labels: The dseg of a template file.
        label_table: Names of its classes, or of the moving image's, a tab-separated file with columns index and name.
        affine: Run the affine to template space where it is needed, always, or never.
        refine: Gradient steps on each pair after the network's answer; 20 are a good number.
        refine_intensity: Weight of the squared difference of intensities in those steps: 8 makes the warped template
            look like the image, 0 makes the cortex overlap better.
        frames: Also write so many frames of the continuous deformation, as a 4D image and an animated picture.
        mirror: Average the answers to the pair and to its mirror image, where the weights' grid is symmetric.
        nearest_labels: Take warped labels from the nearest voxel instead of the largest interpolated indicator.
        device: cpu, cuda, cuda:1, or auto.
        precision: Of the network: bf16, 32, or auto (bf16 where it is fast).
    """
    for name, value in (("refine", refine), ("refine_intensity", refine_intensity), ("frames", frames)):
        if value < 0 or (name == "frames" and value == 1):
            raise UserError(f"--{name}: expected 0 or more{', not 1' * (name == 'frames')}, got {value}")
    if moving_labels and not moving:
        raise UserError("--moving_labels: give --moving too")
    module = load(checkpoint)
    assert isinstance(module, DiffuseMorphModule)
    module.refine, module.refine_intensity = refine, refine_intensity
    module.frames, module.nearest_labels, module.mirror = frames, nearest_labels, mirror
    module.check_mirror()
    original = load_template(template, template_labels, None if moving else label_table)
    registrar = Registrar(module, original, device, precision, affine)
    scans = find_scans(images, pattern, labels)
    other = registrar.prepare(moving, moving_labels, _entity(moving), label_table) if moving else None
    options = module.run_options() | {"affine": affine, "moving": sha256(moving) if moving else original.name}
    open_run(out, "registration", module, options)
    failures: dict[str, str] = {}
    for scan in tqdm(scans, desc="registering", unit="image", disable=None):
        if row_path(out, scan.name).is_file():
            continue
        try:
            row = _register(registrar, scan, other, out)
        except UserError as error:
            failures[scan.name] = str(error)
            tqdm.write(f"cortexgen: {scan.name} failed: {error}")
        else:
            write_json(row_path(out, scan.name), row)
    write_table(out, scans, failures)
    if failures:
        rest = "" if len(failures) == len(scans) else ", the others are done"
        name, reason = next(iter(failures.items()))
        raise UserError(f"{len(failures)} of {len(scans)} image(s) failed{rest}; {name}: {reason}")
    print(f"{len(scans)} image(s) registered: {out / 'registration.tsv'}")


def _entity(path: Path) -> str:
    """A file's name as a BIDS value: letters and digits only."""
    return "".join(c for c in path.name.split(".")[0] if c.isalnum()) or "moving"


def _register(registrar: Registrar, scan: Scan, moving: Prepared | None, out: Path) -> dict[str, Any]:
    fixed = registrar.prepare(scan.image, scan.labels)
    moving = moving or registrar.atlas(min(fixed.space.grid.spacing))
    images, maps = registrar.pair(moving, fixed)
    with registrar.arithmetic():
        row = write_registration(out, scan, registrar.module, images, maps, dict(registrar.info(moving)))
    return {"participant_id": scan.name, **row}
