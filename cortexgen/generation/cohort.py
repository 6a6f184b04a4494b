"""A cohort of drawn brains, in whatever processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cortexgen import registry
from cortexgen.contracts import Generator
from cortexgen.errors import UserError
from cortexgen.generation.folder import BrainFolder, sample_name
from cortexgen.io.bids import Row
from cortexgen.io.output import open_run
from cortexgen.runner.cohort import Runner
from cortexgen.runner.threads import workers

DATASET = "synthetic cohort"
ASIDE = ("seed",)  # what a generator without chance needn't take


class DrawBrains:
    """Draws and writes the brains of a micro-batch that aren't there yet; each process has a generator of its own.

    Arguments:
        root: an output folder that `open_run` made.
        name: of the generator, in the registry.
        options: that it is made with.
        count: brains of the cohort.
    """

    def __init__(self, root: Path, name: str, options: Mapping[str, Any], count: int) -> None:
        self.root, self.name, self.options, self.count = root, name, dict(options), count
        self._made: dict[str | None, Generator] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}}

    def generator(self, device: str | None = None) -> Generator:
        """On a device; its own choice unless given."""
        if device not in self._made:
            options = self.options | ({} if device is None else {"device": device})
            self._made[device] = registry.made("generators", self.name, options, ASIDE)
        return self._made[device]

    def __call__(self, item: tuple[int, str | None]) -> Row:
        first, device = item
        generator = self.generator(device)
        folder = BrainFolder(self.root, generator.describe())
        wanted = [k for k in range(first, min(first + generator.batch, self.count)) if not folder.has(k)]
        for brain in generator.draws(wanted):
            folder.write(brain)
        return {"participant_id": sample_name(first), "status": "ok"}


def generate_cohort(
    out: Path,
    count: int,
    name: str = "fields",
    options: Mapping[str, Any] | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    devices: int = 1,
) -> int:
    """Draw and write a cohort; brains that are there already are left as they are.

    Arguments:
        count: of brains.
        name: of the generator, in the registry.
        options: that it is made with.
        jobs: processes on this machine; with one, brains are drawn side by side in threads.
        scheduler: address of a Dask scheduler whose workers draw instead.
        devices: GPUs, which the processes share.

    Returns:
        How many draws were rejected.

    Raises:
        UserError: if options can't be met, or the folder holds something else; and for brains that failed, once the
            others are done.
    """
    work = DrawBrains(Path(out).resolve(), name, options or {}, count)
    generator = work.generator()
    made_by = generator.describe()
    open_run(out, DATASET, made_by)
    folder = BrainFolder(out, made_by)
    folder.check_environment()
    gpu = devices > 1 and made_by.get("Parameters", {}).get("device") == "cuda"
    starts = range(0, count, generator.batch)
    items = {sample_name(k): (k, f"cuda:{i % devices}" if gpu else None) for i, k in enumerate(starts)}
    waiting = {n: item for n, item in items.items() if not all(map(folder.has, _batch(item[0], generator, count)))}
    with Runner(jobs, scheduler, beside=workers()) as runner:
        rows = runner.run(work, waiting, "drawing", "brain" if generator.batch == 1 else "batch")
    rejected = folder.close()
    lost = [row for row in rows.values() if row["status"] == "failed"]
    if lost:
        raise UserError(f"{len(lost)} of {len(items)} failed, the others are done: {lost[0]['reason']}")
    return rejected


def _batch(first: int, generator: Generator, count: int) -> range:
    return range(first, min(first + generator.batch, count))
