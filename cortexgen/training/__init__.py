"""LightningCLI for both stages."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "run_verb":  # imports Lightning, which the names of presets don't need
        from cortexgen.training.cli import run_verb

        return run_verb
    raise AttributeError(f"module 'cortexgen.training' has no attribute {name!r}")
