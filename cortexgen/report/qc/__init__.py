"""Quality control of preprocessing: a sheet for each scan, outliers of the cohort, and one page to look through."""

from cortexgen.report.qc.measures import flag_outliers
from cortexgen.report.qc.page import cohort_overview
from cortexgen.report.qc.sheet import sheet_path, subject_sheet

__all__ = ["cohort_overview", "flag_outliers", "sheet_path", "subject_sheet"]
