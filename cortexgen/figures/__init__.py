"""Pictures of brains, deformations and cohorts."""

from cortexgen.figures.animation import animate
from cortexgen.figures.brains import cohort, slices, to_png, write_png
from cortexgen.figures.charts import training_curves, volume_distributions
from cortexgen.figures.deformations import deformed_grid, log_jacobian_map, registration
from cortexgen.figures.scan_sheet import sheet_path, subject_sheet
from cortexgen.figures.synthesis import synthesis

__all__ = [
    "animate",
    "cohort",
    "deformed_grid",
    "log_jacobian_map",
    "registration",
    "sheet_path",
    "slices",
    "subject_sheet",
    "synthesis",
    "to_png",
    "training_curves",
    "volume_distributions",
    "write_png",
]
