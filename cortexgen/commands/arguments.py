"""A command's line, read by jsonargparse."""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import auto_cli

from cortexgen.commands import load
from cortexgen.training.presets import PresetParser

TRUTH = ("true", "false", "yes", "no")
ALONE = ("--help", "--print_config")  # options without a value


class _Parser(PresetParser):
    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        if args == ("synthetic",):  # the sets of `evaluate REAL A B OUT`
            kwargs = {"type": str, "nargs": "+", "help": kwargs["help"]}
        if args == ("names",):  # of `weights verify A B`, or of none
            kwargs = {"type": str, "nargs": "*", "default": [], "help": kwargs["help"]}
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        super().error(f"{self.prog.split()[-1]}: {_plain(message)}")


def _plain(message: str) -> str:
    """jsonargparse's words about a value in fewer: "--sampler: expected ancestral or ddim, got euler"."""
    text = " ".join(message.split())
    key, value = re.search(r'Parser key "([\w.]+)"', text), re.search(r".*(?:Given|Got) value: (.*)$", text)
    kinds = re.findall(r"Expected a (typing\.Literal\[.*?\]|<class '\w+'>)", text)
    wanted = [kind.removeprefix("typing.Literal[").strip("]<>").removeprefix("class ") for kind in kinds]
    wanted = [word.replace("', '", " or ").strip("'") for word in wanted if word != "'NoneType'"]
    if not (key and value and wanted):
        return message
    return f"{key[1]}: expected {' or '.join(dict.fromkeys(wanted))}, got {value[1]}"


def run_command(name: str, args: Sequence[str]) -> Any:
    """Run one of `COMMANDS`.

    Raises:
        UserError: for a user's mistake.
    """
    command = load(name)
    return auto_cli(command, args=arranged(command, args), prog=f"cortexgen {name}", parser_class=_Parser)


def arranged(command: Callable[..., None], args: Sequence[str]) -> list[str]:
    """A command's arguments as argparse takes them: what stands at a place, then each option with its value.

    Options may stand anywhere and be written with hyphens (`--num-samples 3` is `--num_samples=3`), a switch alone
    means true (`--native-size`), `--participant-label 01 02` is a list, and `--fixed B` is the first place.
    """
    parameters = inspect.signature(command).parameters
    switches = {f"--{name}" for name, parameter in parameters.items() if isinstance(parameter.default, bool)}
    lists = {f"--{name}" for name, parameter in parameters.items() if parameter.annotation == list[str] | None}
    rest, places, options = list(args), list[str](), list[str]()
    while rest and rest[0] != "--":
        arg = rest.pop(0)
        if not arg.startswith("--"):
            (options if arg == "-h" else places).append(arg)
            continue
        option, equals, value = arg.partition("=")
        option = "--" + option[2:].replace("-", "_")
        following = rest[0] if rest else "--"
        if not equals and option in switches and following.lower() not in TRUTH:
            equals, value = "=", "true"
        elif option in lists:
            several = [value] if equals else []
            while rest and not rest[0].startswith("--"):
                several.append(rest.pop(0))
            equals, value = "=", json.dumps(several)
        elif not equals and option not in ALONE and not following.startswith("--"):
            equals, value = "=", rest.pop(0)
        if option == "--fixed" and equals and "images" in parameters:
            places.insert(0, value)
        else:
            options.append(option + equals + value)
    return [*places, *options, *rest]
