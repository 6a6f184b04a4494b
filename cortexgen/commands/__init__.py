"""The commands beside the trainer's verbs: one file, one function each."""

import inspect
import json
from collections.abc import Callable, Sequence
from importlib import import_module

from cortexgen.errors import UserError

# Shown by `cortexgen --help`; the functions are imported when they are called.
COMMANDS = {
    "preprocess": "raw T1w scans (BIDS, ADNI, NCANDA, folders) to a cohort in template space, with quality control",
    "register": "the template, or any image, to T1w images: fields, labels, volumes; weights included",
    "generate": "new labelled brains, as many as wanted, of any age and sex; weights included",
    "evaluate": "synthetic brains, or registrations, against real ones: tables and a report, with floors and intervals",
    "demo": "everything at toy size, from nothing but the installed packages, with a report",
    "export": "a checkpoint of either stage as a weights file with its card",
    "simulate": "write a simulated cohort of labelled brains with known fields",
}

TRUTH = ("true", "false", "yes", "no")


def load(name: str) -> Callable[..., None]:
    """The function behind a command."""
    return getattr(import_module(f"cortexgen.commands.{name}"), name)


def arguments(name: str, args: Sequence[str]) -> list[str]:
    """A command's arguments as its parser takes them.

    `--num-samples` is `--num_samples`, a switch alone means true (`--native-size`), and `register OUT --fixed B` is
    `register B OUT`.
    """
    switches = {p.name for p in inspect.signature(load(name)).parameters.values() if isinstance(p.default, bool)}
    args = _sets_listed(args, switches) if name == "evaluate" else args
    out: list[str] = []
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        option, equals, value = arg.partition("=")
        if not option.startswith("--"):
            out.append(arg)
            continue
        option = option.replace("-", "_").replace("__", "--", 1)
        alone = option[2:] in switches and not equals and following.lower() not in TRUTH
        out.append(f"{option}=true" if alone else option + equals + value)
    return _images_first(out) if name == "register" else out


def listed(text: str | None) -> list[str]:
    """The parts of a comma-separated option."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _sets_listed(args: Sequence[str], switches: set[str]) -> list[str]:
    """`evaluate REAL A B OUT` with A and B as one list."""
    places, taken = [], False
    for i, arg in enumerate(args):
        option = arg.startswith("--")
        if not option and not taken:
            places.append(i)
        switch = arg[2:].replace("-", "_") in switches and [*args, ""][i + 1].lower() not in TRUTH
        taken = option and "=" not in arg and not switch and arg not in ("--help",)
    if len(places) < 3:
        if places and not any(
            arg in ("--help", "-h") or arg.startswith(("--config", "--print_config")) for arg in args
        ):
            raise UserError(f"evaluate: expected REAL SYNTHETIC... OUT, got {' '.join(args[i] for i in places)}")
        return list(args)
    sets = json.dumps([args[i] for i in places[1:-1]])
    return [sets if i == places[1] else arg for i, arg in enumerate(args) if i not in places[2:-1]]


def _images_first(args: list[str]) -> list[str]:
    """`--fixed` is another way to say IMAGES."""
    for i, arg in enumerate(args):
        if arg == "--fixed" and i + 1 < len(args):
            return [args[i + 1], *args[:i], *args[i + 2 :]]
        if arg.startswith("--fixed="):
            return [arg.removeprefix("--fixed="), *args[:i], *args[i + 1 :]]
    return args
