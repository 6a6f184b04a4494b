"""All models of a benchmark, side by side, then one evaluation of them all."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from cortexgen.benchmark.calls import call
from cortexgen.benchmark.models import Model
from cortexgen.benchmark.plan import Plan, Row, roots
from cortexgen.errors import UserError
from cortexgen.runner.progress import Progress


def run_models(plan: Plan, models: Mapping[str, Model], jobs: int = 1) -> dict[str, Row]:
    """The record of each model, `jobs` of them at a time; calls are processes of their own.

    Raises:
        UserError: if none could be had.
    """
    records: dict[str, Row] = {}
    with ThreadPoolExecutor(jobs) as pool, Progress("models", len(models), "model") as bar:
        futures = {pool.submit(plan.run, name, model): name for name, model in models.items()}
        for future in as_completed(futures):
            record = records[futures[future]] = future.result()
            said = f"failed: {record['reason']}" if record["status"] == "failed" else "done"
            bar.write(f"{record['title']}: {said}")
            bar.update()
    if all(record["status"] == "failed" for record in records.values()):
        name, record = next(iter(records.items()))
        raise UserError(f"none of {len(records)} model(s) could be trained and used; {name}: {record['reason']}")
    return {name: records[name] for name in models}


def evaluate(plan: Plan, sets: Mapping[str, Path], options: Mapping[str, object], jobs: int = 1) -> str:
    """Measure sets against the held-out people by one call of `cortexgen evaluate`; returns what it couldn't use.

    Arguments:
        sets: folders by name.
        options: of the command, beside.
    """
    words: list[object] = ["evaluate", roots(plan.sides.held_out), *(f"{name}={path}" for name, path in sets.items())]
    words += [plan.evaluation, "--seed", plan.seed, "--jobs", jobs]
    if plan.samples is None:
        words.append("--registration")
    else:
        words += ["--train", roots(plan.sides.train), "--train_fields", "false"]  # a registration of each would be long
    for name, value in options.items():
        words += [f"--{name}", value]
    return call(words, plan.out / "evaluation.log", plan.threads).note
