"""Pictures of brains, deformations and cohorts, and the HTML report that holds them."""

from cortexgen.report.animation import animate
from cortexgen.report.charts import training_curves, volume_distributions
from cortexgen.report.deformations import deformed_grid, log_jacobian_map, registration
from cortexgen.report.figures import cohort, slices, to_png
from cortexgen.report.html import Report
from cortexgen.report.synthesis import synthesis, synthesis_figure

__all__ = [
    "Report",
    "animate",
    "cohort",
    "deformed_grid",
    "log_jacobian_map",
    "registration",
    "slices",
    "synthesis",
    "synthesis_figure",
    "to_png",
    "training_curves",
    "volume_distributions",
]
