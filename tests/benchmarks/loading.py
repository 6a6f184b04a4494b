"""The share of a training that waits for data: each kind of cache, with MONAI's data sets in the same runs as peers.

    python tests/benchmarks/loading.py COHORT --steps 8
    python tests/benchmarks/loading.py COHORT --config paper/register.yaml --trainer.accumulate_grad_batches 1

Each row is a real `cortexgen fit` of so many steps in a process of its own; options that this script doesn't know go to
it. "fill" is what `setup` takes in seconds (headers, template and, but for "none", every volume decoded once), "again"
what it takes the next time. "wait" and "step" are medians over the training steps in milliseconds, "share" is
wait / (wait + step) over all of them, both without the first one, which starts the loading processes; they come from
Lightning's SimpleProfiler. "alone" is the loader without a network behind it, in milliseconds a sample over two epochs
after a first one: what a faster device would wait for. MONAI's CacheDataset and PersistentDataset stand in the place of
the library's own cache and hold the same float16 volumes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

CACHES = ("none", "memory", "disk", "CacheDataset", "PersistentDataset")
COLUMNS = ("cache", "workers", "fill", "again", "wait", "step", "share", "alone")


class Peer:
    """A data set of MONAI's as a cache."""

    def __init__(self, kind: str, files: list[Path], folder: Path) -> None:
        import monai.data
        from monai.transforms import Transform

        decoders: dict[str, Callable[[], Tensor]] = {}

        class Decode(Transform):
            def __call__(self, item: dict[str, str]) -> Tensor:
                return decoders[item["file"]]()

        items = [{"file": str(file)} for file in files]
        own: dict[str, Any] = {"runtime_cache": True} if kind == "CacheDataset" else {"cache_dir": folder}
        self.decoders, self.data = decoders, getattr(monai.data, kind)(items, Decode(), **own)
        self.place = {str(file): k for k, file in enumerate(files)}
        self.done: set[Path] = set()

    def get(self, source: Path, decode: Callable[[], Tensor]) -> Tensor:
        self.decoders[str(source)] = decode
        self.done.add(source)
        return self.data[self.place[str(source)]]

    def __contains__(self, source: Path) -> bool:
        return source in self.done


def fit(
    cohort: Path, config: str, cache: str, workers: int, steps: int, options: list[str], scratch: Path
) -> dict[str, Any]:
    """One run; the row of the table."""
    from cortexgen.cli import run
    from cortexgen.data import registration
    from cortexgen.data.cohort import read_cohort

    set_start_method("fork", force=True)  # of loading processes, as in a program started by hand
    torch.set_num_threads(1)
    if cache not in ("none", "memory", "disk"):
        files = [file for scan in read_cohort(cohort) for file in (scan.image, scan.labels) if file]
        registration.open_cache = lambda *_: Peer(cache, files, scratch)  # type: ignore[assignment]
    seconds: list[float] = []
    setup = registration.RegistrationDataModule.setup

    def timed(self: registration.RegistrationDataModule, stage: str) -> None:
        start = time.perf_counter()
        setup(self, stage)
        seconds.append(time.perf_counter() - start)

    registration.RegistrationDataModule.setup = timed  # type: ignore[method-assign]
    kind = cache if cache in ("none", "disk") else "memory"
    args: list[Any] = [
        "--config",
        config,
        "--data.root",
        cohort,
        "--data.cache",
        kind,
        "--data.cache_dir",
        scratch,
        "--data.num_workers",
        workers,
    ]
    args += ["--trainer.max_steps", steps, "--trainer.max_epochs", -1, "--trainer.limit_val_batches", 0, "--wandb=off"]
    args += ["--trainer.profiler", "simple", "--trainer.logger", "false", "--trainer.enable_checkpointing", "false"]
    args += ["--trainer.callbacks", "[]", "--trainer.default_root_dir", scratch / "run", *options]
    cli = run(["fit", *map(str, args)])
    times = cli.trainer.profiler.recorded_durations
    wait = next(v for k, v in times.items() if k.endswith("train_dataloader_next"))[1:steps]
    step = times["run_training_batch"][1:steps]
    return {
        "cache": cache,
        "workers": workers,
        "fill": round(seconds[0], 2),
        "wait": round(1e3 * statistics.median(wait), 1),
        "step": round(1e3 * statistics.median(step)),
        "share": f"{sum(wait) / (sum(wait) + sum(step)):.2%}",
        "alone": round(1e3 * alone(cli.datamodule), 1),
    }


def alone(data: Any, epochs: int = 2) -> float:
    """Seconds a sample of the training loader with nothing to wait for it."""
    loader = data.train_dataloader()
    for epoch in range(epochs + 1):
        if epoch == 1:
            start = time.perf_counter()
        for _ in loader:
            pass
    return (time.perf_counter() - start) / epochs / len(data.side("train"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--config", default="register.yaml")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--caches", default=",".join(CACHES))
    known, options = parser.parse_known_args()
    rows = []
    for cache in known.caches.split(","):
        for workers in map(int, known.workers.split(",")):
            with TemporaryDirectory() as scratch:
                for turn in range(1 if cache == "none" else 2):
                    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                        job = (known.cohort, known.config, cache, workers, known.steps, options, Path(scratch))
                        found = pool.submit(fit, *job).result()
                    if turn == 0:
                        row = found
                row["again"] = found["fill"]
            rows.append(row)
            print(row, flush=True)
    print("\t".join(COLUMNS), *("\t".join(str(row[c]) for c in COLUMNS) for row in rows), sep="\n")


if __name__ == "__main__":
    main()
