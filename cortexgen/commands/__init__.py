"""The commands beside the trainer's verbs: one file, one function each."""

from collections.abc import Callable, Sequence
from importlib import import_module

# Shown by `cortexgen --help`; the functions are imported when they are called.
COMMANDS = {
    "register": "the template, or any image, to T1w images: fields, labels, volumes; weights included",
    "generate": "new labelled brains, as many as wanted, of any age and sex; weights included",
    "demo": "everything at toy size, from nothing but the installed packages, with a report",
    "export": "a checkpoint of either stage as a weights file with its card",
    "simulate": "write a simulated cohort of labelled brains with known fields",
}


def load(name: str) -> Callable[..., None]:
    """The function behind a command."""
    return getattr(import_module(f"cortexgen.commands.{name}"), name)


def with_positionals(name: str, args: Sequence[str]) -> list[str]:
    """`register OUT --moving A --fixed B` as `register B OUT --moving A`: `--fixed` is another way to say IMAGES."""
    out = list(args)
    for i, arg in enumerate(args if name == "register" else ()):
        if arg == "--fixed" and i + 1 < len(args):
            del out[i : i + 2]
            return [args[i + 1], *out]
        if arg.startswith("--fixed="):
            del out[i]
            return [arg.removeprefix("--fixed="), *out]
    return out
