"""Pictures of brains, deformations and cohorts, and the HTML report that holds them."""

from cortexgen.report.charts import training_curves, volume_distributions
from cortexgen.report.deformations import deformed_grid, log_jacobian_map, registration
from cortexgen.report.figures import cohort, slices, to_png
from cortexgen.report.html import Report

__all__ = [
    "Report",
    "cohort",
    "deformed_grid",
    "log_jacobian_map",
    "registration",
    "slices",
    "to_png",
    "training_curves",
    "volume_distributions",
]
