"""The commands beside the trainer's verbs: one file, one function each."""

from collections.abc import Callable
from importlib import import_module

# Shown by `cortexgen --help`; the functions are imported when they are called.
COMMANDS = {
    "preprocess": "raw T1w scans (BIDS, ADNI, NCANDA, folders) to a cohort in template space, with quality control",
    "register": "the template, or any image, to T1w images: fields, labels, volumes; weights included",
    "generate": "new labelled brains, as many as wanted, of any age and sex; weights included",
    "evaluate": "synthetic brains, or registrations, against real ones: tables and a report, with floors and intervals",
    "benchmark": "generators, or registrations, trained and compared on a cohort, beside what was published",
    "bids": "preprocess, register and evaluate a BIDS data set, with the arguments of a BIDS App",
    "demo": "everything at toy size, from nothing but the installed packages, with a report",
    "export": "a checkpoint of either stage as a weights file with its card",
    "simulate": "write a simulated cohort of labelled brains with known fields",
    "weights": "list the trained weights that there are, or verify their files",
    "info": "versions, devices, weights, caches, presets and optional parts, for bug reports too",
    "completion": "a script by which the shell completes commands and options",
}

# The trainer's, of LightningCLI.
VERBS = {
    "fit": "train either stage",
    "validate": "measure a checkpoint on the validation subjects",
    "test": "measure a checkpoint on the test subjects",
    "predict": "write fields (stage 1) or a synthetic cohort (stage 2)",
}


def load(name: str) -> Callable[..., None]:
    """The function behind a command."""
    return getattr(import_module(f"cortexgen.commands.{name}"), name)


def listed(text: str | None) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]
