"""`cortexgen preprocess`: raw T1w scans to an analysis-ready cohort."""

from collections import Counter
from functools import partial
from pathlib import Path

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.commands import listed
from cortexgen.commands.rehearsal import rehearse
from cortexgen.data.cohort import Scan
from cortexgen.errors import UserError
from cortexgen.io import HeaderChoice, read_volume
from cortexgen.io.bids import read_tsv
from cortexgen.io.header import Form
from cortexgen.pages.preprocessed import cohort_overview
from cortexgen.preprocess import Align, Pipeline, Resample, Step, default_steps
from cortexgen.preprocess.cohort import TABLE, check_same_steps, open_cohort, preprocess_cohort
from cortexgen.preprocess.labels import take_table, with_labels
from cortexgen.preprocess.pipeline import finished
from cortexgen.preprocess.reading import read_scan
from cortexgen.preprocess.steps.align import Search
from cortexgen.registry import everything
from cortexgen.runner.verbosity import say
from cortexgen.studies import Several, StudyName, convert_dicom, find_study
from cortexgen.studies.dicom import converter

OVERVIEW = "preprocess.html"

everything("steps")  # classes that are imported are known by their short names


def preprocess(
    images: Path,
    out: Path,
    study: StudyName = "auto",
    table: Path | None = None,
    where: dict[str, str | float | list[str | float]] | None = None,
    visits: str | None = None,
    groups: str | None = None,
    participants: str | None = None,
    image: str | None = None,
    several: Several | None = None,
    steps: list[Step] | None = None,
    skip: str | None = None,
    spacing: float | None = None,
    affine: Search | None = None,
    labels: str | None = None,
    template: str = MNI152,
    template_labels: Path | None = None,
    trust: Form | None = None,
    orientation: str | None = None,
    jobs: int = 1,
    threads: int = 1,
    scheduler: str | None = None,
    dry_run: bool = False,
) -> None:
    """Bring raw T1w scans to template space: denoised, without bias and skull, in [0, 1], with a picture of each.

    Takes a BIDS data set, ADNI's or NCANDA's folder as the study distributes it, a folder of NIfTI files, one file,
    or a table of paths. Writes BIDS derivatives that `fit` and `register` take: the T1w and its brain mask, the affine
    as ITK transform, sidecars that say what was done, participants.tsv, preprocess.tsv, and preprocess.html with what
    to look at first. A scan that can't be used is listed with its reason, the others are done, and the exit status is
    1. A run that was stopped goes on when called again.

    Args:
        images: The study's folder, a folder of NIfTI files, one file, or a table (.csv, .tsv) with a column path.
        out: Folder to write to, as BIDS derivatives.
        study: Layout of the folder; auto looks.
        table: Table of covariates, where it doesn't lie in the study's usual place.
        where: Selection by covariate, such as '{group: [CN, MCI], age: "50-70"}'.
        visits: Visits to take, comma-separated; baseline is what the study calls so, first the earliest there is.
        groups: Groups to take, comma-separated, such as CN.
        participants: Subjects to take, comma-separated, with or without sub-.
        image: Pattern of the image's path where a visit has several.
        several: What to do with several images of a visit.
        steps: The steps in their order; those of preprocess.yaml unless given.
        skip: Steps to leave out, comma-separated, such as strip (an input without skull is noticed without it).
        spacing: Voxel size in millimetres, instead of the steps' own (1).
        affine: Look for the affine auto (unless an input without skull lies in template space), always, or never,
            instead of the step's own. A prepared cohort is aligned anew by --skip strip,denoise,bias --affine always.
        labels: Pattern of the label map beside each image that goes along with it, such as '*_dseg.nii*'; the study's
            dseg.tsv goes along, too.
        template: MNI152NLin2009aSym, or a NIfTI file.
        template_labels: The dseg of a template file.
        trust: The one to take, sform or qform, where a file's two differ, which is refused unless it is given.
        orientation: Where the axes of files run to (LAS, for instance) whose header doesn't say it, as in Analyze 7.5;
            such files are refused unless it is given.
        jobs: Scans at a time on this machine, each in a process of its own.
        threads: Of each process.
        scheduler: Address of a Dask scheduler whose workers take the scans; needs `cortexgen[cluster]` and a folder
            that all of them see.
        dry_run: Say how many would be done, are done before, and can't be used and why, and write nothing; the exit
            status is 1 where the run's would be for its inputs.
    """
    choice = HeaderChoice(trust, orientation)
    chosen = default_steps() if steps is None else list(steps)
    for step in chosen:
        if isinstance(step, Resample) and spacing is not None:
            step.spacing = spacing
        if isinstance(step, Align) and affine is not None:
            step.affine = affine
    pipeline = Pipeline(chosen, load_template(template, template_labels, None, trust), listed(skip), choice)
    check_same_steps(out, pipeline, [images])
    found = find_study(
        images, study, table, where, listed(visits), listed(groups), image, several, listed(participants)
    )
    if dry_run:
        scans = [scan for scan in found.scans if not scan.image.is_dir()]
        paired, unclear = with_labels(scans, labels) if labels and scans else (scans, {})
        paired += [scan for scan in found.scans if scan.image.is_dir()]
        checks = {scan.name: partial(_done, scan, out, pipeline) for scan in paired}
        return rehearse("preprocess", "scan", checks, found.problems | unclear)
    open_cohort(out, pipeline, [images])
    found = convert_dicom(found, out / "sourcedata", jobs)
    scans, unclear = with_labels(found.scans, labels) if labels else (found.scans, {})
    if labels:
        take_table(images, out)
    rows = preprocess_cohort(scans, out, pipeline, jobs, scheduler, {**found.problems, **unclear}, threads)
    cohort_overview(out, read_tsv(out / TABLE), pipeline.describe())
    count = Counter(row["status"] for row in rows)
    say(f"{count['ok']} scan(s) ok, {count['flagged']} to look at, {count['failed']} failed: {out / OVERVIEW}")
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        first = f"{failed[0]['participant_id']}: {failed[0]['reason']}"
        raise UserError(f"{len(failed)} scan(s) failed, see {out / TABLE}; {first}")


def _done(scan: Scan, out: Path, pipeline: Pipeline) -> bool:
    """Whether a scan was preprocessed before; otherwise it is read, unless it is a DICOM series.

    Raises:
        UserError: if it can't be used.
    """
    if scan.image.is_dir():
        converter(scan.image)
        return False
    if finished(scan, out, pipeline):
        return True
    read_scan(scan.image, pipeline.choice)
    if scan.labels:
        read_volume(scan.labels, labels=True, choice=pipeline.choice)
    return False
