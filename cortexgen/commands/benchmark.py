"""`cortexgen benchmark`: generators, or registrations, trained and compared on a cohort of yours."""

import os
from collections.abc import Mapping
from pathlib import Path

from cortexgen.benchmark.calls import call
from cortexgen.benchmark.cohorts import Sides, divide, part, without_held_out
from cortexgen.benchmark.models import GENERATORS, REGISTRATIONS, Budget, Model, chosen
from cortexgen.benchmark.plan import Plan, Row, roots
from cortexgen.benchmark.run import evaluate, run_models
from cortexgen.benchmark.tables import generator_tables, registration_tables
from cortexgen.commands import listed
from cortexgen.commands.evaluate import named_sets
from cortexgen.data.cohorts import Roots, folders_of
from cortexgen.errors import UserError
from cortexgen.io import write_json
from cortexgen.io.output import claim, settings
from cortexgen.io.paths import within
from cortexgen.pages.benchmark import write_report
from cortexgen.runner.verbosity import say

RECORD, REPORT = "benchmark.json", "benchmark.html"


def benchmark(
    cohort: Roots,
    out: Path,
    registration: bool = False,
    models: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    weights: dict[str, Path] | None = None,
    sets: dict[str, Path] | None = None,
    samples: int = 24,
    held_out: str | None = None,
    registered: Path | None = None,
    labels: str = "register",
    classifier: int = 0,
    segmenter: int = 0,
    resamples: int = 500,
    pairs: int = 200,
    seed: int = 0,
    devices: int = 1,
    jobs: int = 1,
) -> None:
    """Train models on a cohort's people, draw brains from each, and measure all against people whom none has seen.

    Each training is a call of `cortexgen fit` with the model's preset and the same budget, each drawing one of
    `cortexgen generate`; time and memory stand beside what `cortexgen evaluate` measures, and beside what the paper
    published of the same models. With --registration, methods that take the template to a subject are compared
    instead. Writes benchmark.html, and tables as CSV, JSON, Markdown and LaTeX. A run that was stopped goes on model by
    model when called again, with more models too; one that fails is named, and the others go on.

    Args:
        cohort: Skull-stripped T1w in template space, BIDS derivatives as `cortexgen preprocess` writes them, or a list
            of cohorts, '[site-a,site-b]'.
        out: Folder to write to.
        registration: Compare registrations instead of generators.
        models: Comma-separated; all unless given. Generators: GENERATORS. With --registration: REGISTRATIONS.
        minutes: Of each training, on the clock.
        steps: Of each training instead; a GAN counts one for each of its networks.
        weights: Checkpoints of models that are trained already, '{vaegan: runs/vaegan/checkpoints/last.ckpt}'.
        sets: Folders of brains that other generators drew, '{theirs: FOLDER}', to be measured with the others; or, with
            --registration, of warped images.
        samples: Brains of each generator.
        held_out: Names of the subjects to measure against, or patterns, comma-separated: '05,10' or '*0,*5'. Where
            weights come with the package or are given, it should be those whom they weren't trained on. A fifth of the
            cohort unless given.
        registered: What `cortexgen register` wrote of the cohort, for models that learn from fields; made unless given.
        labels: Of the evaluation: register, given, or none.
        classifier: Steps of small 3D networks that learn to tell each model's brains from real ones, 200 for instance.
        segmenter: Steps of small segmenters that learn from the cohort's label maps and from each model's, where it
            makes some, 600 for instance: what the labels are worth.
        resamples: Of each bootstrap.
        pairs: Of brains for MS-SSIM within a set.
        seed: Of trainings, samples and what is drawn in measuring.
        devices: GPUs, or processes on a CPU, of each training.
        jobs: Models at a time on this machine; the processor's cores are shared among them.
    """
    for name, value, least in (
        ("samples", samples, 2),
        ("jobs", jobs, 1),
        ("devices", devices, 1),
        ("seed", seed, 0),
        ("classifier", classifier, 0),
        ("segmenter", segmenter, 0),
    ):
        if value < least:
            raise UserError(f"--{name}: expected {least} or more, got {value}")
    known = REGISTRATIONS if registration else GENERATORS
    wanted = chosen(listed(models), known, "--models")
    chosen([*(weights or {})], wanted, "--weights")
    theirs = _others(sets or {}, known)
    budget = _budget(minutes, steps, needed=[n for n, m in wanted.items() if m.limited and n not in (weights or {})])
    folders = [*folders_of(cohort).values()]
    facts: Row = {"cohort": [str(folder.resolve()) for folder in folders]}
    facts |= {"registration": registration, "held_out": held_out}
    division = divide(cohort, listed(held_out))
    inputs = [*folders, *theirs.values(), *filter(None, [registered])]
    if claim(out, lambda root: _same(root, facts), inputs):
        write_json(Path(out, RECORD), facts)
    out = Path(out).resolve()
    sides = part(division, out / "cohort")
    threads = max(1, len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0]) // jobs)
    if any(model.registered for model in wanted.values()):
        registered = _registered(out, sides, registered, jobs)
    given = {name: path.resolve() for name, path in (weights or {}).items()}
    plan = Plan(out, sides, budget, None if registration else samples, seed, threads, devices, registered, given)
    plan.check(wanted)
    records = plan.before(known) | run_models(plan, wanted, jobs)
    records = {name: records[name] for name in known if name in records}
    done = {name: plan.results(name) for name, record in records.items() if record["status"] == "ok"}
    done |= theirs
    options = {} if registration else {"labels": labels, "resamples": resamples, "pairs": pairs, "keep": "true"}
    if not registration:
        options |= {name: n for name, n in (("classifier", classifier), ("segmenter", segmenter)) if n}
    note = evaluate(plan, done, options, jobs)
    make = registration_tables if registration else generator_tables
    tables = make(records, plan.evaluation, sides.measured if registration else samples)
    for name, table in tables.items():
        table.write(within(out, "tables", name))
    write_report(out / REPORT, plan, records, tables, done, note)
    say(f"compared: {out / REPORT}, tables in {out / 'tables'}")
    _say_failed(records)


benchmark.__doc__ = (
    str(benchmark.__doc__)
    .replace("GENERATORS", ", ".join(f"{n} ({m.title})" for n, m in GENERATORS.items()))
    .replace("REGISTRATIONS", ", ".join(f"{n} ({m.title})" for n, m in REGISTRATIONS.items()))
)


def _budget(minutes: float | None, steps: int | None, needed: list[str]) -> Budget:
    if minutes is not None and steps is not None:
        raise UserError("--minutes and --steps: give one of them, each model's budget")
    if minutes is None and steps is None and needed:
        raise UserError(f"no budget: give --minutes or --steps of each training, or --weights of {', '.join(needed)}")
    for name, value in (("minutes", minutes), ("steps", steps)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name}: expected more than 0, got {value}")
    return Budget(minutes, steps)


def _others(sets: Mapping[str, Path], known: Mapping[str, Model]) -> dict[str, Path]:
    """Folders of others' brains by name.

    Raises:
        UserError: if one isn't there, or its name is a model's or can't be a set's.
    """
    found = named_sets([f"{name}={path}" for name, path in sets.items()])
    for name, path in found.items():
        if name in known:
            raise UserError(f"--sets: {name} is the name of a model; call it otherwise")
        if not path.exists():
            raise UserError(f"--sets: {name}: there is no {path}")
    return {name: path.resolve() for name, path in found.items()}


def _same(out: Path, facts: Row) -> bool:
    found = settings(Path(out, RECORD))
    if found is None:
        return False
    for name, value in facts.items():
        if found.get(name) != value:
            raise UserError(f"{out}: holds a benchmark with {name} {found.get(name)}, this one has {value}")
    return True


def _registered(out: Path, sides: Sides, given: Path | None, jobs: int) -> Path:
    """The people to train on, registered: as given, or by the package's weights."""
    if given is not None:
        return without_held_out(given, sides, out / "registered")
    folder = out / "registered"
    call(["register", roots(sides.train), folder, "--field_spacing", 4, "--jobs", jobs], out / "registered.log", 1)
    return folder


def _say_failed(records: dict[str, Row]) -> None:
    failed = {name: record["reason"] for name, record in records.items() if record["status"] == "failed"}
    if failed:
        name, why = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(records)} model(s) failed, the others are compared; {name}: {why}")
