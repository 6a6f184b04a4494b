"""`cortexgen demo`: all stages at toy size, with a report."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cortexgen.errors import UserError
from cortexgen.evaluation.truth import measure
from cortexgen.generation.cohort import generate_cohort
from cortexgen.io import write_json
from cortexgen.io.output import claim, contents, examine_run
from cortexgen.pages.demo import write_report
from cortexgen.runner.verbosity import say
from cortexgen.simulation.cohort import RECORD, simulate_cohort
from cortexgen.training.cli import run_verb


def demo(
    out: Path,
    seed: int = 0,
    subjects: int = 40,
    register_steps: int | None = None,
    generate_steps: int | None = None,
    appearance_steps: int | None = None,
    samples: int = 12,
) -> None:
    """Simulate a cohort, train all stages small, register, generate labelled brains, measure, and write a report.

    Needs nothing but the installed packages: nine minutes on two CPU cores. The folder holds the simulated
    cohort (cohort), the trainings (runs), the registrations (fields), the new brains (brains), metrics.json and
    report.html. A demo that was interrupted goes on where it stopped when called again.

    Args:
        out: Folder to write to.
        seed: Of the simulation, the trainings and the samples.
        subjects: Simulated subjects; 8 of them are held out, 4 validate.
        register_steps: Training steps of stage 1; the preset's unless given.
        generate_steps: Training steps of stage 2; the preset's unless given.
        appearance_steps: Training steps of stage 3; the preset's unless given.
        samples: New brains.
    """
    if subjects < 16:
        raise UserError(f"subjects: the demo needs at least 16 (12 of them are held out), got {subjects}")
    if samples < 2:
        raise UserError(f"samples: at least 2, got {samples}")
    out = Path(out)
    claim(out, _ours)
    seconds: dict[str, float] = {}
    cohort, fields, brains = out / "cohort", out / "fields", out / "brains"

    with _step(seconds, "simulate", f"1/7  simulating {subjects} labelled subjects"):
        simulate_cohort(cohort, subjects=subjects, seed=seed)

    stage_1 = _Stage("demo/register.yaml", cohort, out / "runs" / "register", seed)
    with _step(seconds, "train_register", "2/7  training stage 1: template to subject"):
        stage_1.fit(register_steps)
    with _step(seconds, "register", "3/7  registering every subject"):
        stage_1.predict(fields)

    stage_2 = _Stage("demo/generate.yaml", fields, out / "runs" / "generate", seed)
    with _step(seconds, "train_generate", "4/7  training stage 2: the distribution of the fields"):
        stage_2.fit(generate_steps)
    stage_3 = _Stage("demo/appearance.yaml", cohort, out / "runs" / "appearance", seed)
    stage_3.common += ["--data.registered", str(fields)]
    with _step(seconds, "train_appearance", "5/7  training stage 3: what images have beyond the warped template's"):
        stage_3.fit(appearance_steps)
    with _step(seconds, "generate", f"6/7  generating {samples} labelled brains"):
        options = {"checkpoint": stage_2.weights, "appearance": str(stage_3.weights), "seed": seed}
        generate_cohort(brains, samples, options=options | {"save_fields": True, "warped_labels": True})

    with _step(seconds, "measure", "7/7  measuring, writing the report"):
        result = measure(cohort, fields, brains)
    result.metrics["seconds"] = seconds
    write_json(out / "metrics.json", result.metrics)
    write_report(
        out / "report.html", result, {"register": stage_1.run, "generate": stage_2.run, "appearance": stage_3.run}
    )
    say(_summary(result.metrics, out))


def _ours(out: Path) -> bool:
    """Whether a folder is a demo's: it holds a simulated cohort, and a page only where there are brains to show."""
    for folder, name in (("fields", "template to subject registration"), ("brains", "synthetic cohort")):
        examine_run(out / folder, name)
    shown = {"metrics.json", "report.html"} & {*contents(out)}
    return (out / "cohort" / RECORD).is_file() and (not shown or (out / "brains" / "manifest.json").is_file())


@contextmanager
def _step(seconds: dict[str, float], name: str, message: str) -> Iterator[None]:
    """Say what begins, and note how long it took."""
    say(f"\n{message}")
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)


class _Stage:
    """One stage's verbs with the demo's preset."""

    def __init__(self, config: str, root: Path, run: Path, seed: int) -> None:
        self.run = run
        self.common = ["--config", config, "--data.root", str(root), "--trainer.default_root_dir", str(run)]
        self.common += ["--seed_everything", str(seed)]

    @property
    def weights(self) -> Path:
        """That training left."""
        return self.run / "checkpoints" / "last.ckpt"

    def fit(self, steps: int | None) -> None:
        resume = ["--ckpt_path", "last"] if self.weights.is_file() else []
        run_verb(["fit", *self.common, *resume, *([] if steps is None else ["--trainer.max_steps", str(steps)])])

    def predict(self, output: Path) -> None:
        run_verb(["predict", *self.common, "--ckpt_path", "last", "--output", str(output)])


def _summary(metrics: dict[str, Any], out: Path) -> str:
    r, g = metrics["registration"], metrics["generation"]
    return f"""
held-out subjects ({r["subjects"]}): Dice {r["dice_before"]:.3f} -> {r["dice"]:.3f}, \
endpoint error {r["error_before_mm"]:.2f} -> {r["error_mm"]:.2f} mm, folded voxels {r["folded_voxels"]}
new brains ({g["samples"]}): folded voxels {g["folded_voxels"]}, \
spread of regional volumes {g["sd_ratio_median"]:.2f} of the simulated cohort's
{out / "report.html"}"""
