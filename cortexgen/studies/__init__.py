"""Studies as they are distributed: BIDS, ADNI, NCANDA, folders and tables of files."""

from cortexgen.studies.dicom import convert_dicom
from cortexgen.studies.found import Found, Several, Study, find_study

__all__ = ["Found", "Several", "Study", "convert_dicom", "find_study"]
