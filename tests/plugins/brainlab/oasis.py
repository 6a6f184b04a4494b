"""A study: OASIS-1, a folder OAS1_0001_MR1 a scan."""

from pathlib import Path

from cortexgen.studies import Study
from cortexgen.studies.candidates import Candidate


def read_oasis(root: Path, table: Path | None = None) -> list[Candidate]:
    """Every `OAS1_<subject>_MR<visit>/T1.nii.gz`."""
    candidates = []
    for path in sorted(root.glob("OAS1_*_MR*/T1.nii.gz")):
        _, subject, visit = path.parent.name.split("_")
        where = path.relative_to(root).as_posix()
        candidates.append(Candidate(f"OAS1{subject}", visit, path, where, order=(visit,), baseline=visit == "MR1"))
    return candidates


OASIS = Study("OAS1_0001_MR1 (OASIS-1)", lambda root: any(root.glob("OAS1_*_MR*")), read_oasis)
