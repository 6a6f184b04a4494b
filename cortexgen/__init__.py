"""cortexgen: new, labelled T1-weighted brain MRIs from diffusion models of deformation fields."""

from importlib.metadata import version

__version__ = version("cortexgen")


def __getattr__(name: str) -> object:
    if name in ("register", "generate"):  # imports PyTorch
        from cortexgen import api

        return getattr(api, name)
    raise AttributeError(f"module 'cortexgen' has no attribute {name!r}")
