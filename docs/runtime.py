"""For mkdocstrings: the commands' docstrings as they are at run time, when lists of models and metrics are in them."""

import inspect
from typing import Any

import griffe

from cortexgen.commands import COMMANDS, load


class RuntimeDocstrings(griffe.Extension):
    """Everything else is read from the source alone."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring and func.name in COMMANDS and func.path == f"cortexgen.commands.{func.name}.{func.name}":
            text = inspect.cleandoc(str(load(func.name).__doc__))
            func.docstring.value = text.replace("*", r"\*")  # of file names' patterns
