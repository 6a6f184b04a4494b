"""A synthetic cohort on disk: brains written one by one, then joined."""

import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cortexgen.atlas.colours import write_label_tables
from cortexgen.contracts import Brain
from cortexgen.io import STEP, write_field, write_json, write_volume
from cortexgen.io.bids import STRIPPED, Row, derivative, sha256, sidecar, transform, write_tsv
from cortexgen.io.labels import label_type
from cortexgen.io.output import read_record, record_path, records
from cortexgen.io.participants import read_covariates
from cortexgen.runner.threads import single_thread

KIND = "sample"  # of record


def sample_name(index: int) -> str:
    """Of a brain of a cohort."""
    return f"sub-synth{index + 1:04d}"


def environment(device: str) -> str:
    """What else than the options the last bits of a sample depend on: torch's version and the processor's kind."""
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, {torch.cuda.get_device_name(device) if device == 'cuda' else kind}"


class BrainFolder:
    """Brains of one generator in a folder that `open_run` made.

    Arguments:
        root: the folder.
        made_by: as the generator describes itself.
    """

    def __init__(self, root: Path, made_by: Mapping[str, Any]) -> None:
        self.root, self.made_by, self.options = Path(root), made_by, made_by.get("Parameters", {})
        self.environment = environment(self.options.get("device", "cpu"))

    def _records(self) -> list[Row]:
        """Of the samples that are done."""
        return list(records(self.root, KIND).values())

    def check_environment(self) -> None:
        """Warn of brains that another version or machine made."""
        others = {r["environment"] for r in self._records()} - {self.environment}
        if others:
            there = " and ".join(sorted(others))
            warnings.warn(
                f"{self.root}: its brains were made with {there}; this is {self.environment}: the new ones' last bits "
                "are not those of a cohort made at once",
                stacklevel=2,
            )

    def has(self, index: int) -> bool:
        """Whether a brain is there."""
        return bool(read_record(record_path(self.root, sample_name(index), KIND)))

    @single_thread()
    def write(self, brain: Brain) -> Row:
        """Write a brain, its labels and its fields, then the record with each file's hash, which it returns."""
        name, field = sample_name(brain.index), brain.field
        record: Row = {"participant_id": name, "rejected": brain.rejected, "conditions": brain.conditions}
        record["environment"] = self.environment
        if field is not None and field.unfolding:
            record["unfolding_rounds"] = field.unfolding
        if field is not None and field.growth != 1:
            record["growth"] = field.growth
        if brain.style:
            record["style"] = dict(brain.style)
        if brain.volumes is not None:
            record["volumes_ml"] = dict(brain.volumes)
        paths = self._files(name, brain)
        space = [] if field is None else [field.template]
        for key, path in paths.items():
            side: dict[str, Any] = {"SpatialReference": paths["T1w"].name, "Sources": space}
            if key == "T1w":
                side |= STRIPPED
            if field is not None and key == "velocity":
                side |= {"IntegrationSteps": field.steps}
            if field is not None and key in ("velocity", "inverse", "growth"):
                side |= {"SpatialReference": field.template}
            write_json(sidecar(path), side)
        record["sha256"] = {path.name: sha256(path) for path in paths.values()}
        write_json(record_path(self.root, name, KIND), record)
        return record

    def _files(self, name: str, brain: Brain) -> dict[str, Path]:
        """Write the images and fields; returns their paths."""
        field, grid = brain.field, brain.grid
        paths = {"T1w": derivative(self.root, name, "T1w")}
        write_volume(paths["T1w"], brain.image, grid)
        if field is not None:
            paths["xfm"] = transform(self.root, name, field.template, "T1w")
            write_field(paths["xfm"], field.displacement, grid, STEP)
        if brain.labels is not None:
            write_label_tables(self.root, brain.classes)
            paths["dseg"] = derivative(self.root, name, "dseg")
            largest = max(brain.classes, default=int(brain.labels.max()))
            write_volume(paths["dseg"], brain.labels, grid, label_type(largest))
            if brain.warped_labels is not None:
                paths["warped"] = derivative(self.root, name, "dseg", desc="warped")
                write_volume(paths["warped"], brain.warped_labels, grid, label_type(largest))
        if field is not None and field.inverse is not None and field.log_jacobian is not None:
            paths["velocity"] = derivative(self.root, name, "field", space=field.template, desc="velocity")
            paths["inverse"] = transform(self.root, name, "T1w", field.template)
            paths["growth"] = derivative(self.root, name, "map", space=field.template, desc="logjac")
            write_field(paths["velocity"], field.velocity, field.velocity_grid)
            write_field(paths["inverse"], field.inverse, grid, STEP)
            write_volume(paths["growth"], field.log_jacobian, grid)
        return paths

    def close(self) -> int:
        """Join the records of all samples that the folder holds: participants.tsv, volumes.tsv and manifest.json.

        Returns:
            How many draws were rejected.
        """
        found = self._records()
        if not found:
            return 0
        rows = [{"participant_id": r["participant_id"]} for r in found]
        before = read_covariates(self.root, [(r["participant_id"].removeprefix("sub-"), "") for r in found], warn=False)
        people = [a | b | r["conditions"] for a, b, r in zip(rows, before, found, strict=True)]
        write_tsv(self.root / "participants.tsv", people)
        if all("volumes_ml" in r for r in found):
            write_tsv(self.root / "volumes.tsv", [a | r["volumes_ml"] for a, r in zip(rows, found, strict=True)])
        rejected = sum(len(r["rejected"]) for r in found)
        manifest = {
            "weights": self.made_by.get("Weights"),
            "template": self.made_by.get("Template"),
            "options": self.options,
            "environments": sorted({r["environment"] for r in found}),
            "samples": len(found),
            "rejected": rejected,
            "rejected_share": rejected / max(1, len(found) + rejected),
            "records": found,
        }
        write_json(self.root / "manifest.json", manifest)
        return rejected
