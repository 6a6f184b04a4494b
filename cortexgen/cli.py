"""The front door: commands and LightningCLI's verbs under one program."""

import errno
import io
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import cortexgen.clock  # noqa: F401  so that it begins with the program
from cortexgen import __version__
from cortexgen.commands import COMMANDS, VERBS
from cortexgen.commands.arguments import run_command
from cortexgen.errors import UserError
from cortexgen.runner.verbosity import speaking, split
from cortexgen.training.presets import PRESETS


def help_text() -> str:
    """What `cortexgen --help` prints."""

    def rows(entries: dict[str, str]) -> str:
        return "\n".join(f"  {name:<10} {text}" for name, text in entries.items())

    return f"""usage: cortexgen COMMAND [options]

New, labelled T1-weighted brain MRIs from diffusion models of deformation fields.

commands:
{rows(COMMANDS)}

training and inference of the two stages, from YAML (LightningCLI):
{rows(VERBS)}

with any of them, before or after its name:
  --quiet     errors and warnings alone, no progress and no results on the terminal
  --verbose   everything, Lightning's hints too

  cortexgen demo out
  cortexgen preprocess STUDY COHORT --jobs 4
  cortexgen register sub-01_T1w.nii.gz out
  cortexgen generate out --num-samples 20 --age 50
  cortexgen evaluate COHORT BRAINS out
  cortexgen fit --config register.yaml --data.root COHORT
  cortexgen predict --config register.yaml --data.root COHORT --ckpt_path last --output FIELDS
  cortexgen fit --config generate.yaml --data.root FIELDS
  cortexgen predict --config generate.yaml --data.root FIELDS --ckpt_path last --output BRAINS

bundled presets: {PRESETS}
`cortexgen COMMAND --help` explains a command, `cortexgen fit --model.help DiffuseMorphModule` a module's options.

exit status: 0 done; 1 a mistake in options or input, or some items failed and the others are done (the last line says
which); 130 interrupted, 143 terminated: the same call goes on, a training with --ckpt_path last
"""


def _fail(message: str, status: int = 1) -> NoReturn:
    print(f"cortexgen: error: {' '.join(str(message).split())}", file=sys.stderr)
    raise SystemExit(status)


def run(args: Sequence[str]) -> Any:
    """Run one command or verb in this process.

    Raises:
        UserError: for a user's mistake.
    """
    name, *rest = args
    if name in COMMANDS:
        return run_command(name, rest)
    if name not in VERBS:
        raise UserError(f"unknown command {name!r}; there are {', '.join([*COMMANDS, *VERBS])}")
    from cortexgen.training.cli import run_verb  # imports Lightning: seconds

    return run_verb(args)


def main(args: Sequence[str] | None = None) -> None:
    """The program; exits with 0, or with a line that says what is wrong."""
    try:
        args, level = split(sys.argv[1:] if args is None else args)
    except UserError as error:
        _fail(str(error))
    if not args or args[0] in ("-h", "--help"):
        print(help_text())
        return
    if args[0] == "--version":
        print(f"cortexgen {__version__}")
        return
    for stream in (sys.stdout, sys.stderr):  # names of files needn't be text that a terminal can show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"cortexgen: warning: {message}\n"  # type: ignore[assignment]
    try:
        with speaking(level):
            run(args)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP):
            _fail(f"{error.filename or 'a path'!s:.200}: {error.strerror}")
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EFBIG):
            _fail(f"{error.filename or 'output'}: cannot write ({error.strerror})")
        raise
    except KeyboardInterrupt:
        _fail("interrupted", 130)
