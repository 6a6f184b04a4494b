"""DICOM series, converted by dcm2niix."""

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError, reason
from cortexgen.io.atomic import temporary_name
from cortexgen.io.bids import anat
from cortexgen.io.naming import is_nifti
from cortexgen.io.paths import label
from cortexgen.runner.progress import tracked
from cortexgen.studies.found import Found


def convert_dicom(found: Found, folder: Path, jobs: int = 1) -> Found:
    """Convert the scans that are DICOM series into `folder/sub-*/[ses-*/]anat`; those that are there are kept.

    Arguments:
        found: what `find_study` found.
        folder: for the NIfTI files; not touched where there are no series.
        jobs: series converted at the same time.

    Returns:
        The same with NIfTI files only; a series that can't be converted is a problem.
    """
    series = [scan for scan in found.scans if scan.image.is_dir()]
    if not series:
        return found

    def convert(scan: Scan) -> Path | str:
        try:
            return _convert(scan, folder)
        except Exception as error:
            return reason(error)

    with ThreadPoolExecutor(jobs) as pool:
        bar = tracked(pool.map(convert, series), "converting DICOM", len(series), "series")
        results = dict(zip((s.name for s in series), bar, strict=True))
    problems = {name: result for name, result in results.items() if isinstance(result, str)}
    images = {name: result for name, result in results.items() if isinstance(result, Path)}
    scans = [replace(s, image=images.get(s.name, s.image)) for s in found.scans if s.name not in problems]
    return Found(scans, found.problems | problems)


def _program() -> str | None:
    """dcm2niix of the package dcm2niix, or on the search path."""
    try:
        from dcm2niix import bin as program
    except ImportError:
        return shutil.which("dcm2niix")
    return str(program)


def converter(series: Path) -> str:
    """The program that converts a series.

    Raises:
        UserError: if it is not there.
    """
    program = _program()
    if program is None:
        raise UserError(f"{series}: a DICOM series; install dcm2niix (pip install dcm2niix), or give NIfTI files")
    return program


def _convert(scan: Scan, folder: Path) -> Path:
    """One series; a UserError without a converter, and if it fails or doesn't make one image."""
    out = anat(folder, scan.name) / f"{scan.name}_desc-{label(scan.image.name)}_T1w.nii.gz"
    if out.is_file():
        return out
    program = converter(scan.image)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=temporary_name(), dir=out.parent) as place:
        command = [program, "-b", "n", "-z", "y", "-f", "image", "-o", place, str(scan.image)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        images = [p for p in Path(place).iterdir() if is_nifti(p)]
        if len(images) != 1:
            said = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "nothing")
            found = f"dcm2niix made {len(images)} images of this series, expected one"
            raise UserError(f"{scan.image}: {found}; it said: {said}")
        os.replace(images[0], out)
    return out
