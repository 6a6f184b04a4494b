"""Studies as stage 1 trains on them: preprocessed once, then read like any cohort."""

import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from cortexgen.atlas.template import load_template
from cortexgen.data.cohort import Scan
from cortexgen.data.cohorts import Roots, folders_of
from cortexgen.data.registration import RegistrationDataModule
from cortexgen.errors import UserError
from cortexgen.io.bids import anat, read_tsv
from cortexgen.io.paths import visible
from cortexgen.preprocess import Pipeline, Step, cohort, default_steps
from cortexgen.studies.dicom import convert_dicom
from cortexgen.studies.found import Found, StudyName, find_study
from cortexgen.studies.study import Several


class StudyDataModule(RegistrationDataModule):
    """Pairs (template, subject) of a study of raw T1w scans, preprocessed before the first run.

    What is preprocessed already is kept, so that a run goes on where it stopped, and several selections of a study can
    share one folder. A large cohort is best prepared by `cortexgen preprocess` into the same folder: with several
    devices, the others wait meanwhile. It also draws the page to look through, which this doesn't.

    Arguments:
        root: the study: a folder in the layout of BIDS, ADNI or NCANDA, a folder of NIfTI files, or a table of paths;
            or a list of such, from each of which the same is chosen.
        derivatives: folder for the preprocessed scans, of several studies with a folder for each; the study's name with
            -cortexgen, beside it, unless given.
        table: of covariates, where it doesn't lie in its usual place.
        visits: names of visits; "baseline": the first scan of what the study calls so; "first": the earliest there is.
        groups: of the column group, such as [CN].
        where: by column: a value, a range "50-70", a bound ">=50", or a list of such, one of which must fit.
        image: pattern of the image's path in the study, such as "*run-1*", or several in order of preference.
        several: what to do with several images of a visit: "refuse" them as a problem, or take the "first" or "last".
        steps: of preprocessing, in order; the default pipeline unless given.
        skip: names of steps to leave out.
        jobs: scans preprocessed at the same time.
        options: of RegistrationDataModule.
    """

    study: ClassVar[StudyName] = "auto"

    def __init__(
        self,
        root: Roots,
        derivatives: Path | None = None,
        table: Path | None = None,
        visits: list[str] | str | None = None,
        groups: list[str] | None = None,
        where: dict[str, Any] | None = None,
        image: list[str] | str | None = None,
        several: Several | None = None,
        steps: list[Step] | None = None,
        skip: list[str] | None = None,
        jobs: int = 1,
        **options: Any,
    ) -> None:
        self.sources = folders_of(root)
        outs = {name: _beside(source) for name, source in self.sources.items()}
        if derivatives:
            outs = {name: Path(derivatives, *([name] if len(outs) > 1 else [])) for name in outs}
        roots = list(outs.values())
        super().__init__(root=roots, image="*_desc-preproc_T1w.nii*", labels="*_desc-preproc_dseg.nii*", **options)
        self.folders = outs  # cohorts are called after their studies
        if jobs < 1:
            raise UserError(f"jobs: expected 1 or more, got {jobs}")
        for name, out in outs.items():
            if out.absolute() == self.sources[name].absolute():
                raise UserError(f"derivatives: {out} is the study itself; give another folder")
        self.selection = table, where, visits, groups, image, several
        self.steps, self.skip, self.jobs = steps, skip or [], jobs
        self.prepare_data_per_node = False

    @cached_property
    def found(self) -> dict[str, Found]:
        """The chosen scans of each study, and what is wrong with others."""
        return {name: find_study(source, self.study, *self.selection) for name, source in self.sources.items()}

    def prepare_data(self) -> None:
        """Preprocess the chosen scans that aren't yet.

        Raises:
            UserError: if a folder holds scans preprocessed otherwise, or nobody is left.
        """
        steps = default_steps() if self.steps is None else self.steps
        pipeline = Pipeline(steps, load_template(*self.template_source), self.skip, self.choice)
        for out in self.folders.values():
            cohort.check_same_steps(out, pipeline, self.sources.values())
        for name, chosen in self.found.items():  # all of them, or nothing is written
            out = self.folders[name]
            cohort.open_cohort(out, pipeline, self.sources.values())
            found = convert_dicom(chosen, out / "sourcedata", self.jobs)
            cohort.preprocess_cohort(found.scans, out, pipeline, jobs=self.jobs, problems=found.problems)

    def setup(self, stage: str) -> None:
        """Read what was preprocessed of the chosen scans, as RegistrationDataModule does."""
        for name in self.folders if not self.scans else ():
            self._check_prepared(name)
        super().setup(stage)

    def _check_prepared(self, study: str) -> None:
        """Chosen scans without an output become problems, with preprocessing's reason; an error if all of them are."""
        out, found = self.folders[study], self.found[study]
        table = out / cohort.TABLE
        reasons = {row["participant_id"]: row.get("reason") for row in (read_tsv(table) if table.is_file() else [])}
        names = [scan.name for scan in found.scans]
        missing = [name for name in names if not visible(anat(out, name), self.patterns[0])]
        not_made = {name: str(reasons.get(name) or f"{out}: it was not preprocessed") for name in missing}
        problems = found.problems | not_made
        if not problems:
            return
        prefix = f"{study}/" if len(self.folders) > 1 else ""  # of several studies, names may be others' too
        self.problems |= {prefix + name: reason for name, reason in problems.items()}
        name, reason = next(iter((not_made or problems).items()))
        if len(missing) == len(names):
            raise UserError(f"{out}: none of {len(names)} chosen scans was preprocessed; {name}: {reason}")
        where = self.sources[study]
        warnings.warn(f"{len(problems)} scans of {where} are left out; {name}: {reason}", stacklevel=2)

    def _find(self, root: Path) -> list[Scan]:
        """The chosen scans, whose covariates are the study's and what preprocessing measured."""
        study = next(name for name, out in self.folders.items() if out == root)
        chosen = {scan.name: scan.covariates for scan in self.found[study].scans}
        scans = super()._find(root)
        return [replace(s, covariates=s.covariates | chosen[s.name]) for s in scans if s.name in chosen]


def _beside(source: Path) -> Path:
    """The folder for what is made of a study."""
    place = source.absolute()
    name = place.name.split(".")[0] if place.is_file() else place.name
    return place.with_name(f"{name}-cortexgen")


class BIDSDataModule(StudyDataModule):
    """Pairs (template, subject) of a raw BIDS data set, `sub-*/[ses-*/]anat/*_T1w.nii[.gz]` with participants.tsv.

    Arguments:
        root: the data set.
        visits: sessions, such as [pre, post] or ["1", "2"]; "first": each subject's earliest.
        image: pattern of the image's path, such as "*run-1*" or "*acq-mprage*", or several in order of preference.
    """

    study: ClassVar[StudyName] = "bids"


class ADNIDataModule(StudyDataModule):
    """Pairs (template, subject) of ADNI as downloaded from LONI's archive, with the CSV of the download beside it.

    Arguments:
        root: the folder ADNI of the download, or one above it.
        table: the download's CSV, unless it lies in or beside that folder.
        groups: diagnoses, such as [CN] for controls or [MCI, AD].
        visits: of the CSV, such as [sc, m06]; "baseline": the first scan of screening and baseline; "first": each
            subject's earliest.
        image: pattern of the image's path, such as "*N3__Scaled*", or several in order of preference; any T1w unless
            given.
    """

    study: ClassVar[StudyName] = "adni"


class NCANDADataModule(StudyDataModule):
    """Pairs (template, subject) of a release of NCANDA, `cases/*/standard/<visit>/structural/native/t1.nii.gz`.

    Arguments:
        root: the release, or a folder with several parts of one.
        table: demographics.csv, unless it lies under `summaries`.
        groups: values of exceeds_bl_drinking: [N] for participants below the limits of drinking at baseline.
        visits: such as [baseline, followup_1y]; "first": each subject's earliest.
    """

    study: ClassVar[StudyName] = "ncanda"
