"""`cortexgen completion`: a script by which the shell completes commands, options and what they take."""

import argparse
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import capture_parser

from cortexgen.commands import COMMANDS, VERBS
from cortexgen.commands.arguments import run_command
from cortexgen.errors import UserError
from cortexgen.runner.verbosity import OPTIONS
from cortexgen.training.presets import bundled
from cortexgen.weights.catalogue import catalogue

WEIGHTS = ("checkpoint", "appearance", "finer", "features", "start_from", "names")  # what takes names of weights
FOLDERS = ("root", "registered", "template", "template_labels", "label_table", "cache_dir", "derivatives")  # of data


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print a script by which a shell completes commands, their options, presets, names of weights, and files.

    Bash: cortexgen completion bash > ~/.local/share/bash-completion/completions/cortexgen
    Zsh: cortexgen completion zsh > a folder of $fpath/_cortexgen
    Fish: cortexgen completion fish > ~/.config/fish/completions/cortexgen.fish

    It is of the version that is installed, with the options of what other packages add; write it anew after an update.

    Args:
        shell: bash, zsh or fish.
    """
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs shtab: pip install 'cortexgen[completion]'") from None
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f"completion: this version of shtab knows {', '.join(shtab.SUPPORTED_SHELLS)}, not {shell}")
    print(shtab.complete(program(), shell))


def program() -> argparse.ArgumentParser:
    """The whole program as plain argparse, which is what shtab reads."""
    whole = argparse.ArgumentParser("cortexgen")
    whole.add_argument("--version", action="store_true", help="the version")
    _add_speaking(whole)
    commands = whole.add_subparsers()
    for name, text in COMMANDS.items():
        of_command = capture_parser(lambda name=name: run_command(name, []))
        _mirror(of_command, _command(commands, name, text), hyphens=True)
    from cortexgen.training.cli import run_verb  # Lightning takes seconds

    lightning: Any = capture_parser(lambda: run_verb(["fit"]))
    of_verbs = lightning._subcommands_action._name_parser_map
    for name, text in VERBS.items():
        parser = _command(commands, name, text)
        _mirror(of_verbs[name], parser)
        _add_classes(parser)
    return whole


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    _add_speaking(parser)
    return parser


def _add_speaking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="errors and warnings alone")
    parser.add_argument("--verbose", action="store_true", help="everything, Lightning's hints too")
    assert {"--quiet", "--verbose"} == {*OPTIONS}


def _mirror(source: Any, parser: argparse.ArgumentParser, hyphens: bool = False) -> None:
    """Add what a parser of jsonargparse takes, options with hyphens too where they may be written so."""
    for action in source._actions:
        there = parser._option_string_actions
        options = [option for option in action.option_strings if not option.endswith("+") and option not in there]
        if action.option_strings and not options:
            continue
        options += [option.replace("_", "-") for option in options if hyphens and "_" in option]
        hint, name = getattr(action, "_typehint", None), action.dest.rpartition(".")[2]
        text = str(action.help or "").replace("\n", " ").replace("%", "")
        how: dict[str, Any] = {"help": text.split(". ")[0].split(": ")[0]}
        if action.nargs in ("*", "+"):
            how["nargs"] = action.nargs
        if choices := action.choices or _choices(hint):
            how["choices"] = list(choices)
        added: Any = parser.add_argument(*(options or [action.dest]), **how)
        if words := _words(name):
            added.complete = _words_or_files(name, words)
        elif choices is None and (name == "output" or _takes(hint, Path)):
            added.complete = _files()


def _files() -> Any:
    import shtab

    return shtab.FILE


def _words(name: str) -> list[str]:
    """What an option takes beside files."""
    words = {"config": bundled(), "ckpt_path": ["last", "best"]}
    return [w.reference for w in catalogue()] if name in WEIGHTS else words.get(name, [])


def _words_or_files(name: str, words: list[str]) -> dict[str, Any]:
    """How each shell completes some words, and files."""
    function, text = f"_cortexgen_{name}_files", " ".join(words)  # a name by which shtab knows that it gives files
    bash = f"""{function}() {{ compgen -W "{text}" -- "$1"; compgen -f -- "$1"; }}"""
    zsh = f"{function}() {{ compadd -- {text}; _files; }}"
    fish = f"(string split ' ' '{text}'; __fish_complete_path (commandline -ct))"
    return {"bash": function, "zsh": function, "fish": fish, "preamble": {"bash": bash, "zsh": zsh}}


def _choices(hint: Any) -> list[str] | None:
    """Words, one of which an option takes."""
    found = [str(value) for part in _parts(hint) if get_origin(part) is Literal for value in get_args(part)]
    return [*found, *(["true", "false"] if _takes(hint, bool) else [])] or None


def _takes(hint: Any, kind: type) -> bool:
    return any(part is kind for part in _parts(hint))


def _parts(hint: Any) -> Iterator[Any]:
    """A type and those that it is a union or a list of."""
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _parts(part)


def _add_classes(parser: argparse.ArgumentParser) -> None:
    """Add the options of modules and data modules, each under the names that any of the classes has."""
    from lightning import LightningDataModule

    from cortexgen.modules.base import StageModule

    for key, base in (("model", StageModule), ("data", LightningDataModule)):
        classes = [kind for kind in _subclasses(base) if kind.__module__.startswith("cortexgen.")]
        names = dict.fromkeys(name for kind in classes for name in _parameters(kind))
        for action in parser._actions:
            if action.option_strings == [f"--{key}"]:
                action.choices = sorted(kind.__name__ for kind in classes if not inspect.isabstract(kind))
        for name in names:
            added: Any = parser.add_argument(f"--{key}.{name}")
            if name in FOLDERS:
                added.complete = _files()


def _subclasses(base: Any) -> Iterator[Any]:
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _parameters(kind: Callable[..., Any]) -> Iterator[str]:
    """Names of a class's options, those included that it hands on to its bases."""
    for base in inspect.getmro(kind):  # type: ignore[arg-type]
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        yield from (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return
