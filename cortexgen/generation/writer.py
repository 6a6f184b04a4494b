"""Stage 2's output: samples written as a cohort."""

import platform
import warnings
from typing import TYPE_CHECKING

import torch

from cortexgen.generation.drawing import Sample, Sampler
from cortexgen.io import write_field, write_json, write_volume
from cortexgen.io.bids import Row, derivative, sha256, sidecar, transform, write_tsv
from cortexgen.io.labels import label_type
from cortexgen.io.output import read_record, record_path, records
from cortexgen.io.participants import read_covariates
from cortexgen.runner.threads import single_thread
from cortexgen.spatial import log_jacobian

if TYPE_CHECKING:
    from cortexgen.modules.generator import GeneratorModule

KIND = "sample"  # of record


def _name(index: int) -> str:
    return f"sub-synth{index + 1:04d}"


def environment(device: torch.device) -> str:
    """What else than the options the last bits of a sample depend on: torch's version and the processor's kind."""
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, {torch.cuda.get_device_name(device) if device.type == 'cuda' else kind}"


class CohortWriter:
    """Writes samples of a module to its output folder; one a process.

    Arguments:
        module: with trained weights, in a running trainer.

    Raises:
        UserError: if the template is not the one trained on, or the folder holds something else.
    """

    def __init__(self, module: "GeneratorModule") -> None:
        self.module, self.sampler = module, Sampler(module)
        names = (*module.run_options, "conditions", "sample_seed", "native_size", "save_fields")
        self.options = {name: getattr(module, name) for name in names} | {"grid": str(self.sampler.grid)}
        self.options["classes"] = list(self.sampler.template.classes)
        precision = str(module.trainer.precision).split("-")[0]
        self.options |= {"device": module.device.type, "precision": precision, "threads": 1}
        self.options["micro_batch"] = module.batch
        self.root = module.open_output(module.output_name, self.options)
        self.environment = environment(module.device)
        others = {r["environment"] for r in self._records()} - {self.environment}
        if others and module.trainer.is_global_zero:
            there = " and ".join(sorted(others))
            warnings.warn(
                f"{self.root}: its brains were made with {there}; this is {self.environment}: the new ones' last bits "
                "are not those of a cohort made at once",
                stacklevel=2,
            )

    def _records(self) -> list[Row]:
        """Of the samples that are done."""
        return list(records(self.root, KIND).values())

    def write(self, first: int) -> list[Row]:
        """Draw and write the samples of the micro-batch of sample `first` that aren't there; returns their records."""
        wanted = [k for k in self.module.together(first) if k < self.module.num_samples]
        missing = [k for k in wanted if not read_record(record_path(self.root, _name(k), KIND))]
        return [self._write(sample) for sample in self.sampler.draws(missing)]

    @single_thread()
    def _write(self, sample: Sample) -> Row:
        name = _name(sample.index)
        record: Row = {"participant_id": name, "rejected": sample.rejected, "conditions": sample.conditions}
        record["environment"] = self.environment
        if sample.unfolding:
            record["unfolding_rounds"] = sample.unfolding
        if sample.growth != 1:
            record["growth"] = sample.growth
        if sample.volumes is not None:
            classes = self.sampler.template.classes
            record["volumes_ml"] = dict(zip(classes[1:], sample.volumes[1:].tolist(), strict=True))
        self._files(name, record, sample)
        return record

    def _files(self, name: str, record: Row, sample: Sample) -> None:
        """Write a brain, its labels and its fields, then the record with each file's hash."""
        template, grid, velocity_grid = self.sampler.template, sample.grid, self.sampler.velocity_grid
        space = template.name
        paths = {"T1w": derivative(self.root, name, "T1w"), "xfm": transform(self.root, name, space, "T1w")}
        write_volume(paths["T1w"], sample.image, grid)
        write_field(paths["xfm"], sample.displacement, grid)
        if sample.labels is not None:
            paths["dseg"] = derivative(self.root, name, "dseg")
            write_volume(paths["dseg"], sample.labels, grid, label_type(max(template.numbers, default=0)))
        if self.module.save_fields:
            paths["velocity"] = derivative(self.root, name, "field", space=space, desc="velocity")
            paths["inverse"] = transform(self.root, name, "T1w", space)
            paths["growth"] = derivative(self.root, name, "map", space=space, desc="logjac")
            flow = sample.inverse_flow[None]
            inverse = self.sampler.on_image(flow, sample.growth, inverse=True)
            nonlinear = self.sampler.on_image(flow, 1.0, inverse=True)
            write_field(paths["velocity"], sample.velocity, velocity_grid)
            write_field(paths["inverse"], inverse, grid)
            write_volume(paths["growth"], log_jacobian(nonlinear[None])[0], grid)
        for key, path in paths.items():
            side = {"SpatialReference": paths["T1w"].name, "Sources": [space]}
            if key == "velocity":
                side |= {"IntegrationSteps": self.sampler.steps}
            if key in ("velocity", "inverse", "growth"):
                side |= {"SpatialReference": space}
            write_json(sidecar(path), side)
        record["sha256"] = {path.name: sha256(path) for path in paths.values()}
        write_json(record_path(self.root, name, KIND), record)

    def close(self) -> None:
        """Join the records of all samples that the folder holds: participants.tsv, volumes.tsv and manifest.json."""
        trainer = self.module.trainer
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        found = self._records()
        rows = [{"participant_id": r["participant_id"]} for r in found]
        before = read_covariates(self.root, [(r["participant_id"].removeprefix("sub-"), "") for r in found], warn=False)
        people = [a | b | r["conditions"] for a, b, r in zip(rows, before, found, strict=True)]
        write_tsv(self.root / "participants.tsv", people)
        if all("volumes_ml" in r for r in found):
            write_tsv(self.root / "volumes.tsv", [a | r["volumes_ml"] for a, r in zip(rows, found, strict=True)])
        rejected = sum(len(r["rejected"]) for r in found)
        manifest = {
            "weights": self.module.weights_hash(),
            "template": self.module.contract["template"]["hash"],
            "options": self.options,
            "environments": sorted({r["environment"] for r in found}),
            "samples": len(found),
            "rejected": rejected,
            "rejected_share": rejected / max(1, len(found) + rejected),
            "records": found,
        }
        write_json(self.root / "manifest.json", manifest)
