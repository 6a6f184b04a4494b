"""Files: NIfTI images, ITK displacement fields, BIDS derivatives. Millimetres, RAS and LPS live here only."""

from cortexgen.io.atomic import atomic, write_json, write_text
from cortexgen.io.grid import Grid
from cortexgen.io.header import HeaderChoice
from cortexgen.io.itk import STEP, in_steps, read_field, read_field_grid, write_field
from cortexgen.io.nifti import read_grid, read_volume, write_series, write_volume

__all__ = [
    "STEP",
    "Grid",
    "HeaderChoice",
    "atomic",
    "in_steps",
    "read_field",
    "read_field_grid",
    "read_grid",
    "read_volume",
    "write_field",
    "write_json",
    "write_series",
    "write_text",
    "write_volume",
]
