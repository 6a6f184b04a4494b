"""cortexgen: new, labelled T1-weighted brain MRIs from diffusion models of deformation fields."""

from importlib.metadata import version

__version__ = version("cortexgen")


def __getattr__(name: str) -> object:
    if name == "register":  # imports PyTorch
        from cortexgen.api import register

        return register
    raise AttributeError(f"module 'cortexgen' has no attribute {name!r}")
