"""The page of `cortexgen demo`: all stages at toy size, beside the simulation's truth."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from cortexgen import figures
from cortexgen.errors import UserError
from cortexgen.evaluation.truth import Result
from cortexgen.io import read_field, read_volume
from cortexgen.io.bids import derivative, transform
from cortexgen.pages.report import Report
from cortexgen.pages.viewer import MOST, Viewer
from cortexgen.spatial import integrate, log_jacobian, resample_field


def _load(path: Path | None) -> Tensor:
    if path is None:
        raise UserError("the cohort has an image without a dseg")
    return read_volume(path)[0][0]


def write_report(path: Path, result: Result, runs: Mapping[str, Path]) -> None:
    """One self-contained HTML file."""
    r, g = result.metrics["registration"], result.metrics["generation"]
    grid, template = result.template.grid, result.template
    page = Report("cortexgen demo", "All stages at toy size on a simulated cohort of the MNI152 template.")
    page.key_figures(
        [
            ("Endpoint error", f"{r['error_mm']:.2f} mm", f"{r['error_before_mm']:.2f} mm before registration"),
            ("Dice", f"{r['dice']:.3f}", f"{r['dice_before']:.3f} before registration"),
            ("Folded voxels", f"{r['folded_voxels'] + g['folded_voxels']}", "held-out registrations and new brains"),
            ("Spread of volumes", f"{g['sd_ratio_median']:.2f}", "generated to simulated, median over regions"),
        ]
    )
    page.section("New brains", "Slices of simulated subjects and of generated ones, each with its labels.")
    shown = min(6, len(result.brains))
    groups = {"Simulated subjects": result.cohort[:shown], "Generated brains": result.brains[: 2 * shown]}
    rows = {name: [_load(scan.image) for scan in scans] for name, scans in groups.items()}
    dsegs = {name: [_load(scan.labels) for scan in scans] for name, scans in groups.items()}
    viewer = Viewer(dict(enumerate(template.classes)))
    for group, folder in (("Simulated subjects", result.fields), ("Generated brains", None)):
        for scan, image, labels in zip(groups[group][: MOST // 2], rows[group], dsegs[group], strict=False):
            field = transform(folder or scan.image.parents[2], scan.name, template.name, "T1w")
            viewer.add(group, scan.name, image[None], grid, labels[None], read_field(field))
    page.viewer(viewer, "Simulated subjects and generated brains, coronal slices.")
    for plane in ("axial", "coronal", "sagittal"):
        page.figure(figures.cohort(rows, grid, plane=plane), f"{plane.capitalize()} slices.")
    page.figure(
        figures.cohort(rows, grid, plane="coronal", labels=dsegs),
        "The labels come through the same field, and are fitted to the image.",
    )

    page.section("Registration", "A held-out subject: the template is warped onto it in one pass.")
    name = result.subjects[0]["participant_id"]
    forward, _ = read_field(transform(result.fields, name, template.name, "T1w"))
    inverse, _ = read_field(transform(result.fields, name, "T1w", template.name))
    fixed = _load(next(s.image for s in result.cohort if s.name == name))
    warped = _load(derivative(result.fields, name, "T1w", desc="warped"))
    growth = log_jacobian(inverse[None])[0, 0]
    page.figure(
        figures.registration(template.image[0], fixed, warped, forward, growth, grid),
        f"{name}: template, subject, warped template, differences, the field as a grid, log growth from the template.",
    )
    formats = {key: ".3f" for key in result.subjects[0] if key != "folded_voxels"}
    page.table(result.subjects, "Held-out simulated subjects.", formats)

    text = "The field of the first new brain, and the growth it means for each template voxel."
    page.section("A generated field", text)
    new = result.brains[0]
    root = new.image.parents[2]
    displacement, _ = read_field(transform(root, new.name, template.name, "T1w"))
    velocity, coarse = read_field(derivative(root, new.name, "field", space=template.name, desc="velocity"))
    back = resample_field(integrate(velocity[None], inverse=True), coarse.torch_affine, grid.shape, grid.torch_affine)
    page.figure(figures.deformed_grid(displacement, grid, background=_load(new.image)), "The field as a grid.")
    growth_map = figures.log_jacobian_map(log_jacobian(back)[0, 0], template.image[0], grid)
    page.figure(growth_map, "log |J| of exp(-v), above 0 growth.")

    page.section("Regional volumes", "Voxel counts of the template's labels, warped, on both sides.")
    names = template.classes[1:]
    volumes = figures.volume_distributions(names, *result.volumes, cohorts=("Simulated", "Generated"))
    page.chart(volumes, "Relative to the simulated mean.")
    page.table(
        [{"region": n, "sd_ratio": g["sd_ratio"][n], "cohens_d": g["cohens_d"][n]} for n in names],
        "Ratio of standard deviations (generated to simulated) and effect size of the means.",
        {"sd_ratio": ".2f", "cohens_d": "+.2f"},
    )
    page.section("Training")
    for stage, run in runs.items():
        logs = sorted(run.glob("logs/version_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
        if logs:
            page.chart(figures.training_curves(logs), f"Stage: {stage}.")
    page.table([{"step": k, "seconds": v} for k, v in result.metrics["seconds"].items()], "Time.", {"seconds": ".0f"})
    page.write(path)
