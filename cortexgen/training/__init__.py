"""LightningCLI for both stages."""

from cortexgen.training.cli import run_verb

__all__ = ["run_verb"]
