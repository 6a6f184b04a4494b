"""Pictures of brains, deformations and cohorts, and the HTML report that holds them."""

from cortexgen.report.animation import animate
from cortexgen.report.charts import training_curves, volume_distributions
from cortexgen.report.deformations import deformed_grid, log_jacobian_map, registration
from cortexgen.report.figures import cohort, slices, to_png
from cortexgen.report.html import Report
from cortexgen.report.qc import cohort_overview, flag_outliers, sheet_path, subject_sheet
from cortexgen.report.synthesis import synthesis, synthesis_figure

__all__ = [
    "Report",
    "animate",
    "cohort",
    "cohort_overview",
    "deformed_grid",
    "flag_outliers",
    "log_jacobian_map",
    "registration",
    "sheet_path",
    "slices",
    "subject_sheet",
    "synthesis",
    "synthesis_figure",
    "to_png",
    "training_curves",
    "volume_distributions",
]
