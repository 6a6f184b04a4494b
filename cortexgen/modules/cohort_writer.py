"""Stage 2's output: samples that are checked, drawn again if they fail, and written as a cohort."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cortexgen.data.template import Template, load_template
from cortexgen.errors import UserError
from cortexgen.io import Grid, write_field, write_json, write_volume
from cortexgen.io.bids import Row, anat, derivative, sha256, sidecar, transform, write_tsv
from cortexgen.metrics import regional_volumes, volume_weights
from cortexgen.spatial import folded, identity, integrate, resample_field, warp, warp_labels

if TYPE_CHECKING:
    from cortexgen.modules.fielddiffusion import FieldDiffusionModule

VOLUME_LIMIT = 4.0  # standard deviations of the training cohort's log-volumes


def record_path(root: Path, name: str) -> Path:
    """Where a sample's record is kept; written last, so it says that the sample is done."""
    return anat(root, name) / f"{name}_desc-sample_metrics.json"


def warp_template(template: Template, displacement: Tensor) -> tuple[Tensor, Tensor | None]:
    """The template's image and labels `[1, D, H, W]` pulled back by `[3, D, H, W]` on the template's grid."""
    image = warp(template.image[None], displacement[None])[0]
    if template.labels is None:
        return image, None
    positions = identity(displacement.shape[1:]) + displacement[None]
    return image, warp_labels(template.labels[None], positions, len(template.classes))[0][0]


class CohortWriter:
    """Writes samples of a module to its output folder; one a process.

    Arguments:
        module: with trained weights, in a running trainer.

    Raises:
        UserError: if the template is not the one trained on, or the folder holds something else.
    """

    def __init__(self, module: "FieldDiffusionModule") -> None:
        self.module, self.contract = module, module.contract
        self.steps = self.contract["integration_steps"]
        self.velocity_grid = Grid.from_dict(self.contract["grid"])
        image_grid = Grid.from_dict(self.contract["image_grid"])
        grid = image_grid.at_spacing(module.spacing) if module.spacing else image_grid
        original = module.data.template if module.data_is_set_up else load_template(*self.contract["template_source"])
        expected = self.contract["template"]["hash"]
        if original.hash != expected:
            raise UserError(f"the checkpoint's template has hash {expected}, {original.name} has {original.hash}")
        self.template = original.to(grid)
        self.weights = (
            None
            if original.labels is None
            else volume_weights(original.labels, original.grid, self.velocity_grid, len(original.classes))
        )
        names = ("sampler", "steps", "guidance", "conditions", "sample_seed")
        self.options = {name: getattr(module, name) for name in names} | {"grid": str(grid)}
        self.root = module.open_output("synthetic cohort", self.options)

    def failed_checks(self, velocity: Tensor, displacement: Tensor) -> list[str]:
        """What is wrong with a sample: folds on a written grid, regional volumes outside mean ± 4 SD.

        Arguments:
            velocity: `[3, d, h, w]` in voxels of its grid.
            displacement: `[3, D, H, W]` in voxels of the images' grid.
        """
        reasons = []
        folds = int(folded(displacement[None])[0]) + int(folded(integrate(velocity[None], self.steps))[0])
        if folds:
            reasons.append(f"{folds} folded voxels")
        if self.weights is not None and "log_volume_mean" in self.contract:
            volumes = regional_volumes(velocity[None], self.weights, self.velocity_grid.voxel_volume, self.steps)[0]
            z = (volumes.log() - self.contract["log_volume_mean"]) / self.contract["log_volume_std"].clamp(min=1e-6)
            for k in torch.nonzero(~(z.abs() <= VOLUME_LIMIT)).flatten().tolist():
                reasons.append(f"{self.template.classes[k]} at {float(z[k]):+.1f} SD")
        return reasons

    def write(self, index: int) -> Row | None:
        """Draw and write sample `index`, unless it is there; returns its record.

        Raises:
            UserError: if it failed its checks too often.
        """
        name = f"sub-synth{index + 1:04d}"
        if record_path(self.root, name).is_file():
            return None
        rejected: list[str] = []
        grid = self.template.grid
        while True:
            velocity = self.module.sample(index, attempt=len(rejected))
            u = integrate(velocity[None], self.steps)
            displacement = resample_field(u, self.velocity_grid.torch_affine, grid.shape, grid.torch_affine)[0]
            reasons = self.failed_checks(velocity, displacement)
            if not reasons:
                break
            rejected.append("; ".join(reasons))
            if len(rejected) > self.module.max_redraws:
                raise UserError(
                    f"{name}: {len(rejected)} draws failed the checks, the last one with {rejected[-1]}; "
                    "train longer, or raise max_redraws"
                )
        record: Row = {"participant_id": name, "rejected": rejected, **(self.module.conditions or {})}
        self._files(name, record, velocity, displacement)
        return record

    def _files(self, name: str, record: Row, velocity: Tensor, displacement: Tensor) -> None:
        """Write a brain, its labels and its fields, then the record with each file's hash."""
        template = self.template
        image, labels = warp_template(template, displacement)
        paths = {
            "T1w": derivative(self.root, name, "T1w"),
            "dseg": derivative(self.root, name, "dseg"),
            "xfm": transform(self.root, name, template.name, "T1w"),
            "velocity": derivative(self.root, name, "field", space=template.name, desc="velocity"),
        }
        write_volume(paths["T1w"], image, template.grid)
        write_field(paths["xfm"], displacement, template.grid)
        write_field(paths["velocity"], velocity, self.velocity_grid)
        if labels is None:
            del paths["dseg"]
        else:
            write_volume(paths["dseg"], labels, template.grid, np.uint8 if len(template.classes) < 256 else np.int16)
        for key, path in paths.items():
            side = {"SpatialReference": paths["T1w"].name, "Sources": [template.name]}
            if key == "velocity":
                side |= {"IntegrationSteps": self.steps, "SpatialReference": template.name}
            write_json(sidecar(path), side)
        record["sha256"] = {path.name: sha256(path) for path in paths.values()}
        write_json(record_path(self.root, name), record)

    def close(self) -> None:
        """Join the records of all processes: participants.tsv and manifest.json."""
        trainer = self.module.trainer
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        names = (f"sub-synth{k + 1:04d}" for k in range(self.module.num_samples))
        paths = [path for path in (record_path(self.root, name) for name in names) if path.is_file()]
        records = [json.loads(path.read_text()) for path in paths]
        conditions = self.module.conditions or {}
        write_tsv(
            self.root / "participants.tsv", [{"participant_id": r["participant_id"], **conditions} for r in records]
        )
        rejected = sum(len(r["rejected"]) for r in records)
        manifest = {
            "weights": self.module.weights_hash(),
            "template": self.contract["template"]["hash"],
            "options": self.options,
            "samples": len(records),
            "rejected": rejected,
            "rejected_share": rejected / max(1, len(records) + rejected),
            "records": records,
        }
        write_json(self.root / "manifest.json", manifest)
