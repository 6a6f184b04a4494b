"""A cohort of drawn brains, in whatever processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cortexgen import registry
from cortexgen.contracts import Generator
from cortexgen.errors import UserError
from cortexgen.generation.folder import BrainFolder, sample_name
from cortexgen.io.bids import Row
from cortexgen.io.output import examine_run, open_run
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
        self._made: dict[str | None, tuple[Generator, BrainFolder]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": {}}

    def made(self, device: str | None = None) -> tuple[Generator, BrainFolder]:
        """The generator on a device, its own choice unless given, and what it has written."""
        if device not in self._made:
            options = self.options | ({} if device is None else {"device": device})
            generator = registry.made("generators", self.name, options, ASIDE)
            self._made[device] = generator, BrainFolder(self.root, generator.describe())
        return self._made[device]

    def missing(self, first: int, device: str | None = None) -> list[int]:
        """The brains of the micro-batch of brain `first` that aren't there."""
        generator, folder = self.made(device)
        return [k for k in range(first, min(first + generator.batch, self.count)) if not folder.has(k)]

    def __call__(self, item: tuple[int, str | None]) -> Row:
        generator, folder = self.made(item[1])
        for brain in generator.draws(self.missing(*item)):
            folder.write(brain)
        return {"participant_id": sample_name(item[0]), "status": "ok"}


def missing_brains(out: Path, count: int, name: str = "fields", options: Mapping[str, Any] | None = None) -> list[str]:
    """The brains that `generate_cohort` would draw, by name; writes nothing.

    Raises:
        UserError: as `generate_cohort`, before it draws.
    """
    _, folder = DrawBrains(Path(out).resolve(), name, options or {}, count).made()
    examine_run(out, DATASET, folder.made_by)
    return [sample_name(k) for k in range(count) if not folder.has(k)]


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
    runner = Runner(jobs, scheduler, beside=workers())
    work = DrawBrains(Path(out).resolve(), name, options or {}, count)
    generator, folder = work.made()
    open_run(out, DATASET, folder.made_by)
    folder.check_environment()
    gpu = devices > 1 and folder.options.get("device") == "cuda"
    starts = [k for k in range(0, count, generator.batch) if work.missing(k)]
    items = {sample_name(k): (k, f"cuda:{i % devices}" if gpu else None) for i, k in enumerate(starts)}
    with runner:
        rows = runner.run(work, items, "drawing", "brain" if generator.batch == 1 else "batch")
    lost = [row for row in rows.values() if row["status"] == "failed"]
    rejected = folder.close()
    if lost:
        rest = ", the others are done" if len(lost) < len(rows) else ""
        raise UserError(f"{len(lost)} of {len(rows)} failed{rest}: {lost[0]['reason']}")
    return rejected
