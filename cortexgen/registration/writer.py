"""Stage 1's output: fields, the warped template and its labels, and a row of metrics for each subject."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cortexgen.atlas.labels import numbered
from cortexgen.atlas.template import BRAIN_FOREGROUND
from cortexgen.data.cohort import Scan
from cortexgen.data.loading import load_labels, load_scan
from cortexgen.data.registered import Registrations, recorded_sides
from cortexgen.errors import UserError
from cortexgen.io import Grid, write_field, write_json, write_series, write_volume
from cortexgen.io.bids import Row, derivative, sidecar, transform
from cortexgen.io.labels import label_type
from cortexgen.metrics import dice, psnr, ssim
from cortexgen.registration.propagation import Propagated, Propagation, Space
from cortexgen.registration.whole import continued, write_whole
from cortexgen.spatial import resample, warp_labels
from cortexgen.spatial.precision import full_precision

if TYPE_CHECKING:
    from cortexgen.modules.diffusemorph import DiffuseMorphModule


class _Files:
    """Names of one registration's results, and what their sidecars say."""

    def __init__(self, root: Path, scan: Scan, moving: Space, fixed: Space) -> None:
        self.root, self.scan, self.moving, self.fixed = root, scan, moving, fixed

    def write(self, result: Propagated, velocity_grid: Grid, steps: int, info: Mapping[str, Any]) -> None:
        scan, moving, fixed = self.scan.name, self.moving, self.fixed
        on_moving, on_fixed = {"SpatialReference": moving.name}, {"SpatialReference": self.scan.image.name}

        def described(path: Path, content: Mapping[str, Any]) -> Path:
            write_json(sidecar(path), {**content, "Sources": [self.scan.image.name]})
            return path

        path = described(transform(self.root, scan, moving.name, fixed.name), on_fixed)
        write_field(path, result.displacement[0], fixed.grid)
        path = described(transform(self.root, scan, fixed.name, moving.name), on_moving)
        write_field(path, result.inverse[0], moving.grid)
        path = described(derivative(self.root, scan, "T1w", desc="warped"), on_fixed)
        write_volume(path, result.warped, fixed.grid)
        path = described(derivative(self.root, scan, "map", space=moving.name, desc="logjac"), on_moving)
        write_volume(path, result.log_jacobian[0], moving.grid)
        flow = {"IntegrationSteps": steps, "Affine": (fixed.affine @ torch.linalg.inv(moving.affine)).tolist()}
        path = derivative(self.root, scan, "field", space=moving.name, desc="velocity")
        write_field(described(path, on_moving | flow | dict(info)), result.velocity[0], velocity_grid)
        if result.labels is not None:
            path = described(derivative(self.root, scan, "dseg", desc="warped"), on_fixed)
            labels = numbered(result.labels, moving.numbers)
            write_volume(path, labels, fixed.grid, label_type(int(labels.max())))


@full_precision
def measure(result: Propagated, maps: Propagation) -> Row:
    """A registration's metrics: similarity and Dice before (affines only) and after, fold counts, growth, volumes."""
    moving, fixed, classes = maps.moving, maps.fixed, maps.moving.classes
    affine_only = maps.still()
    before = maps.warp(affine_only)
    u = torch.einsum("ij,jdhw->idhw", fixed.grid.torch_affine[:3, :3].float(), (result.displacement - affine_only)[0])
    distance = torch.linalg.vector_norm(u, dim=0, keepdim=True)
    brain = resample(moving.image[None], moving.image_grid.torch_affine, moving.grid.shape, moving.grid.torch_affine)
    row: Row = {
        "ssim_before": ssim(before, fixed.image),
        "ssim": ssim(result.warped, fixed.image),
        "psnr_before": psnr(before, fixed.image),
        "psnr": psnr(result.warped, fixed.image),
        "mean_displacement_mm": float(distance[fixed.image > BRAIN_FOREGROUND].mean()),
        "sd_log_jacobian": float(result.log_jacobian[brain > BRAIN_FOREGROUND].std()),
        "folded_voxels": result.folded,
        "unfolding_rounds": result.unfolding,
    }
    if result.labels is not None and result.volumes is not None and moving.labels is not None:
        if fixed.labels is not None:
            plain, _ = warp_labels(moving.labels[None], maps.positions(affine_only), len(classes))
            after = dice(result.labels, fixed.labels, len(classes))
            row["dice_before"] = float(dice(plain[0], fixed.labels, len(classes)).nanmean())
            row["dice"] = float(after.nanmean())
            row |= {f"dice_{name}": float(d) for name, d in zip(classes[1:], after, strict=True)}
        row |= {f"volume_{name}_ml": float(v) for name, v in zip(classes[1:], result.volumes[1:], strict=False)}
    return {k: None if v != v else v for k, v in row.items()}


def write_registration(
    root: Path,
    scan: Scan,
    module: "DiffuseMorphModule",
    pair: tuple[Tensor, Tensor],
    maps: Propagation,
    info: Row,
    whole: Propagation | None = None,
) -> Row:
    """Register one pair and write what it gives; returns the scan's row.

    Arguments:
        pair: moving and fixed image on the module's grid, `[1, 1, D, H, W]`.
        maps: between the images' own spaces.
        info: what else goes into the velocity's sidecar.
        whole: where these are parts of larger images, the maps between those, to write the field there too.
    """
    start = time.perf_counter()
    velocity, kept = module.solve(*pair)
    row: Row = {"status": "ok", "seconds": round(time.perf_counter() - start, 3)}
    if module.refine:
        row["refinement_steps"] = kept
    result = maps.run(velocity.float().cpu(), module.nearest_labels)
    _Files(root, scan, maps.moving, maps.fixed).write(result, maps.velocity_grid, maps.steps, info)
    if whole is not None:
        write_whole(root, scan, result.velocity, maps.velocity_grid, whole)
    if module.frames:
        _write_frames(root, scan, result, maps, module.frames)
    if module.synthesis:
        _write_synthesis(root, scan, module, pair)
    return row | measure(result, maps)


def _write_frames(root: Path, scan: Scan, result: Propagated, maps: Propagation, count: int) -> None:
    """exp(eta v) for eta from 0 to 1: a 4D image on the fixed grid, and an animated picture."""
    from cortexgen.figures.animation import animate  # matplotlib takes a second

    fields = [maps.forward(float(eta) * result.velocity) for eta in torch.linspace(0, 1, count)]
    frames = torch.cat([maps.warp(field) for field in fields])
    path = derivative(root, scan.name, "T1w", desc="continuous")
    write_series(path, frames, maps.fixed.grid)
    picture = path.with_name(path.name.replace(".nii.gz", ".gif"))
    animate(picture, frames, maps.fixed.image, maps.fixed.grid, [field - fields[0] for field in fields])


def _write_synthesis(root: Path, scan: Scan, module: "DiffuseMorphModule", pair: tuple[Tensor, Tensor]) -> None:
    """Algorithm 2 on the module's grid: the image, and a figure of the way to it."""
    from cortexgen.figures.synthesis import synthesis_figure

    moving, fixed = pair
    states: list[tuple[int, Tensor]] = []
    generator = torch.Generator().manual_seed(0)
    out = module.synthesize(moving, fixed, module.synthesis, generator, states)
    grid = Grid.from_dict(module.contract["grid"])
    path = derivative(root, scan.name, "T1w", desc="synthesis")
    write_volume(path, out[0].float(), grid)
    picture = path.with_name(path.name.replace(".nii.gz", ".png"))
    kept = [(t, x[0].float().cpu()) for t, x in states]
    synthesis_figure(picture, moving[0].cpu(), fixed[0].float().cpu(), kept, out[0].float().cpu(), grid)


class RegistrationWriter:
    """Registers the scans of the running trainer's data one by one, and writes the results.

    Arguments:
        module: with trained weights, in a running trainer.

    Raises:
        UserError: if the output folder holds something else, or another split.
    """

    def __init__(self, module: "DiffuseMorphModule") -> None:
        self.module, self.data = module, module.data
        # Results lie on the images' own grid, except where only a slab was worked on.
        self.slab = isinstance(self.data.crop, list)
        original = self.data.original.to(self.data.native)
        template = self.data.template if self.slab else original
        self.space = self._space(template.name, template.image, template.labels, template.grid)
        self.velocity_grid = self.data.grid.coarse(module.h.field_downsample)
        self.whole = self._whole(original.name, original.image) if self.slab and self.data.whole else None
        options = module.run_options() | ({"whole": True} if self.whole else {})
        root = module.open_output(module.output_name, options)
        self.registrations = Registrations(root, self.data.split)
        self._check_split(root)
        self.info = {
            "Template": template.name,
            "TemplateHash": template.hash,
            "ImageGrid": template.grid.to_dict(),
            "Preprocessing": module.contract.get("preprocessing", []),
        }

    def _check_split(self, root: Path) -> None:
        """See that subjects are on the side that they were on when this folder was begun."""
        for subject, sides in recorded_sides(root).items():
            ours = self.data.split.get(subject)
            if ours is not None and sides != {ours}:
                there = ", ".join(sorted(sides))
                raise UserError(
                    f"{root}: {subject} is on the side {there} there, now on {ours}; give the same --data.val and "
                    "--data.test, or another folder"
                )

    def _space(self, name: str, image: Tensor, labels: Tensor | None, grid: Grid) -> Space:
        eye = torch.eye(4, dtype=torch.float64)
        names = (tuple(self.data.template.classes), self.data.template.numbers)
        return Space(name, image, labels, grid, grid, eye, *names)

    def write(self, batch: Mapping[str, Any]) -> Row | None:
        """Register the scan of a batch unless it is done; returns its row of registration.tsv."""
        scan = self.data.scans[batch["index"]]
        return self.registrations.register(scan, lambda: self._registered(scan, batch))

    def _registered(self, scan: Scan, batch: Mapping[str, Any]) -> Row:
        if "error" in batch:
            raise UserError(batch["error"])
        maps = Propagation(self.space, self._fixed(scan), self.velocity_grid, self.module.h.integration_steps)
        pair = self.data.template.image[None].to(batch["fixed"].device), batch["fixed"]
        return write_registration(self.registrations.root, scan, self.module, pair, maps, self.info, self.whole)

    def _whole(self, name: str, template: Tensor) -> Propagation:
        """The map from the whole template to images on its grid."""
        native = self.data.native
        moving, fixed = (self._space(n, template, None, native) for n in (name, "T1w"))
        return Propagation(moving, fixed, continued(self.velocity_grid, native), self.module.h.integration_steps)

    def _fixed(self, scan: Scan) -> Space:
        grid = self.space.grid
        image = self.data.image_of(scan) if self.slab else load_scan(scan, grid, grid, self.data.choice)
        return self._space("T1w", image, load_labels(scan, grid, self.data.template, self.data.choice), grid)

    def close(self) -> dict[str, str]:
        """Join the rows of all processes to registration.tsv; returns the scans that failed, with their reason."""
        trainer, found = self.module.trainer, self.registrations
        parts: list[dict[str, str]] = [found.failures]
        if trainer.world_size > 1:
            parts = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, found.failures)
        found.failures = {name: why for part in parts for name, why in part.items()}
        if trainer.is_global_zero:
            found.write_table(self.data.scans)
        return found.failures
