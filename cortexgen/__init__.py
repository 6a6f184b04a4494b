"""cortexgen: new, labelled T1-weighted brain MRIs from diffusion models of deformation fields."""

from importlib.metadata import version

__version__ = version("cortexgen")
