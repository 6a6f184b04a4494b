"""How much the program says: errors and warnings alone (--quiet), also progress and results, or everything."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, cast

from cortexgen.errors import UserError

Level = Literal["quiet", "normal", "verbose"]
VARIABLE = "CORTEXGEN_VERBOSITY"  # of the environment, so that processes that this one starts know it too
OPTIONS: dict[str, Level] = {"--quiet": "quiet", "--verbose": "verbose"}
VALUES = ["true"], ["false"]  # with which `--verbose` is Lightning's option of `validate` and `test`


def verbosity() -> Level:
    """What holds now."""
    found = os.environ.get(VARIABLE, "normal")
    return cast(Level, found) if found in OPTIONS.values() else "normal"


def split(args: Sequence[str]) -> tuple[list[str], Level]:
    """The program's arguments without `--quiet` and `--verbose`, wherever they stand, and the level that these ask for.

    Raises:
        UserError: if both are there.
    """
    end = args.index("--") if "--" in args else len(args)
    alone = [k for k, arg in enumerate(args[:end]) if arg in OPTIONS and args[k + 1 : k + 2] not in VALUES]
    asked = {OPTIONS[args[k]] for k in alone}
    if len(asked) > 1:
        raise UserError(f"{' and '.join(OPTIONS)}: give one of them")
    return [arg for k, arg in enumerate(args) if k not in alone], asked.pop() if asked else verbosity()


@contextmanager
def speaking(level: Level) -> Iterator[None]:
    """Let a level hold, here and in processes that are started meanwhile."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = level
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def first_process() -> bool:
    """Whether this is the only process of a training, or the one that speaks for the others."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0


def say(text: str) -> None:
    """A command's result, on standard output, unless it is to be quiet."""
    if verbosity() != "quiet":
        print(text, flush=True)


def note(text: str) -> None:
    """What happens, on standard error, unless it is to be quiet; several processes of a training say it once."""
    if verbosity() != "quiet" and first_process():
        print(text, file=sys.stderr, flush=True)
