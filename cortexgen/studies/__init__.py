"""Studies as they are distributed: BIDS, ADNI, NCANDA, folders and tables of files."""

from cortexgen.studies.dicom import convert_dicom
from cortexgen.studies.found import Found, StudyName, find_study
from cortexgen.studies.study import Several, Study

__all__ = ["Found", "Several", "Study", "StudyName", "convert_dicom", "find_study"]
