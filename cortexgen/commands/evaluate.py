"""`cortexgen evaluate`: synthetic brains, or registrations, against real ones, as tables and a report."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cortexgen.atlas.template import MNI152, read_label_table
from cortexgen.commands import listed
from cortexgen.commands.rehearsed_sets import rehearse_pairs, rehearse_sets
from cortexgen.contracts import Labeller
from cortexgen.data.cohorts import Roots, folders_of, place
from cortexgen.errors import UserError
from cortexgen.evaluation.comparison import declared
from cortexgen.evaluation.discrimination import Telling
from cortexgen.evaluation.distribution import load_extractors
from cortexgen.evaluation.output import REPORT, TABLES, examine_evaluation, note_sets, open_evaluation, write_evaluation
from cortexgen.evaluation.pairs import FIELDS, WARPED, WARPED_LABELS, Pairs, Sources
from cortexgen.evaluation.reading import IMAGES, LABELS, BrainSet
from cortexgen.evaluation.registration import evaluate_registration
from cortexgen.evaluation.results import Options
from cortexgen.evaluation.run import Evaluation
from cortexgen.evaluation.tables import REAL
from cortexgen.evaluation.usefulness import ALL, HELD_OUT, REAL_BRAINS, Learning
from cortexgen.io import HeaderChoice
from cortexgen.io.header import Form
from cortexgen.io.paths import is_file_name
from cortexgen.pages.evaluated import write_report
from cortexgen.pages.registered import write_registered_report
from cortexgen.registry import made, names
from cortexgen.runner.cohort import Runner
from cortexgen.runner.precision import Precision, choose_device
from cortexgen.runner.verbosity import say
from cortexgen.weights import FEATURES


def evaluate(
    real: Roots,
    synthetic: list[str],
    out: Path,
    registration: bool = False,
    protocol: Literal["both", "standard", "paper"] = "both",
    labels: str = "register",
    real_labels: Path | None = None,
    synthetic_labels: str | None = None,
    label_table: Path | None = None,
    medicalnet: str | None = None,
    random_features: bool = True,
    features: str | None = FEATURES,
    held_out: str | None = None,
    train: Roots | None = None,
    train_fields: bool = True,
    classifier: int = 0,
    segmenter: int = 0,
    augment: str | None = None,
    segmenter_seeds: int = 1,
    spacing: float | None = None,
    real_images: str = IMAGES,
    images: str | None = None,
    label_pattern: str | None = None,
    rescale: bool = True,
    ignore_affine: bool = False,
    trust: Form | None = None,
    orientation: str | None = None,
    refine: int = 0,
    checkpoint: Path | None = None,
    pairs: int = 200,
    passes: int = 1,
    resamples: int = 500,
    seed: int = 0,
    seconds: dict[str, float] | None = None,
    moving: str = MNI152,
    moving_labels: Path | None = None,
    fields: str | None = None,
    keep: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
    jobs: int = 1,
    scheduler: str | None = None,
    dry_run: bool = False,
) -> None:
    """Compare synthetic brains with real ones: the paper's table, anatomy, memorization, each with floor and interval.

    REAL and SYNTHETIC are folders of NIfTI files or BIDS data sets, of any generator; several synthetic ones, each
    FOLDER or NAME=FOLDER, make several rows. Writes evaluation.html, and tables as CSV, JSON, Markdown and LaTeX. A run
    that was stopped goes on when called again; a brain that can't be used is listed, and the exit status is 1.

    Args:
        real: The real brains, skull-stripped T1w; their grid is the comparison's. A list, '[site-a,site-b]', is of
            several cohorts, as of `register`.
        synthetic: The sets to compare with them, FOLDER or NAME=FOLDER each.
        out: Folder to write to.
        registration: Compare registered images with the fixed ones instead: SYNTHETIC are then folders that
            `cortexgen register` wrote, or other tools' warped images, matched by name.
        protocol: standard is correct (MEASURED_IN_standard), paper is what was published, quirks and all
            (MEASURED_IN_paper).
        labels: register brings the template's labels to the brains of both sides, given takes the label maps beside
            the images, which one labeller must have made, none measures no anatomy; or another package's labeller.
        real_labels: Folder of label maps of the real brains, from a segmenter of yours.
        synthetic_labels: Folders of label maps of the sets, comma-separated, in their order, from the same segmenter.
        label_table: Names of their classes, a tab-separated file with columns index and name.
        medicalnet: MedicalNet's checkpoint files, or folders of them, comma-separated, for FID. Nothing is downloaded.
        random_features: Measure the distance of random features too.
        features: Weights of a trained network of features, a file or a name, for distances where the real brains lie in
            template space; it also says of each brain whether it looks as old as it was asked to be. null for none.
        held_out: Names of real brains that the generator hasn't seen, comma-separated, 05,10 for instance.
        train: The brains it has seen, where they are not among the real ones.
        train_fields: Look for copies of them in fields too, not in images alone; each is registered for that.
        classifier: Train a small 3D network for so many steps, 200 for instance, on four fifths of the real brains and
            of the set at a time, to tell them apart, and see whether it can on the others; beside real brains from
            real ones. Takes ten brains or more of each kind.
        segmenter: Train small segmenters for so many steps, 600 for instance, by the label maps beside the images of
            both sides: what one of the training subjects makes of the set says how right its labels are, and what one
            of the set makes of held-out real brains what they are worth. Needs --train or --held_out.
        augment: Numbers of training subjects, comma-separated, 5,10,20,all for instance: also what a segmenter makes of
            held-out brains that learned from so many, alone and together with the set.
        segmenter_seeds: Trainings of each segmenter, whose mean is taken.
        spacing: Compare at this voxel size in mm, instead of the real brains' own.
        real_images: File name pattern of the images in REAL.
        images: File name pattern of the images in SYNTHETIC; *_T1w.nii*, with --registration *_desc-warped_T1w.nii*.
        label_pattern: Of the label maps beside them; *_dseg.nii*, with --registration *_desc-warped_dseg.nii*.
        rescale: Divide every image by its robust maximum; otherwise images outside [0, 1] are refused.
        ignore_affine: Take every image as lying on the real brains' grid, whatever its header says.
        trust: The one to take, sform or qform, where a file's two differ, which is refused unless it is given.
        orientation: Where the axes of files run to (LAS, for instance) whose header doesn't say it; they are
            refused unless it is given.
        refine: Gradient steps on each pair in labelling by registration.
        checkpoint: Other weights of stage 1 for it, a file or a name as of `cortexgen register`.
        pairs: Of brains for MS-SSIM within a set.
        passes: Of the published MS-SSIM over each set; it was published with 10.
        resamples: Of each bootstrap.
        seed: Of everything drawn.
        seconds: A sample, by the set's name, for the table.
        moving: With --registration, the image that was registered: the template, or a NIfTI file.
        moving_labels: Its label map.
        fields: With --registration, file name pattern of the displacement fields.
        keep: Keep the decoded volumes in OUT/work when done.
        device: Of the networks: cpu, cuda, cuda:1, or auto.
        precision: Of the registration network: bf16, 32, or auto.
        jobs: Brains, or pairs, at a time on this machine, each in a process of its own.
        scheduler: Address of a Dask scheduler whose workers take them; needs `cortexgen[cluster]`, and folders that all
            of them see.
        dry_run: Say how many would be done, are done before, and can't be used and why, and write nothing; the exit
            status is 1 where the run's would be for its inputs.
    """
    counts = {"pairs": (pairs, 1), "passes": (passes, 1), "resamples": (resamples, 2), "seed": (seed, 0)}
    for name, (value, least) in counts.items():
        if value < least:
            raise UserError(f"--{name}: expected {least} or more, got {value}")
    sets, choice, runner = named_sets(synthetic), HeaderChoice(trust, orientation), Runner(jobs, scheduler)
    folders = folders_of(real).values()
    where, inputs = place(folder.resolve() for folder in folders), [*folders, *sets.values()]
    if classifier < 0:
        raise UserError(f"--classifier: expected 0 or more steps, got {classifier}")
    if registration and (segmenter or classifier):
        name = "segmenter" if segmenter else "classifier"
        raise UserError(f"--{name}: measures sets of brains, not --registration")
    if registration:
        sources = Sources(
            images=images or WARPED,
            labels=label_pattern or WARPED_LABELS,
            fields=fields or FIELDS,
            moving=moving,
            moving_labels=moving_labels,
            label_table=label_table,
            fixed_images=real_images,
            choice=choice,
        )
        facts = {"fixed": where}
        examine_evaluation(out, facts, sets, inputs)
        if dry_run:
            return rehearse_pairs(Pairs(real, sets, sources))
        found = evaluate_registration(real, sets, out, sources, runner)
        note_sets(out, facts, found.registered)
        write_registered_report(out / REPORT, found)
        close(found.problems, {}, out, len(sets))
        return
    if (real_labels is None) != (synthetic_labels is None):
        raise UserError("--real_labels and --synthetic_labels: give both, from one segmenter, so that sides are alike")
    maps = [None] * len(sets) if synthetic_labels is None else [Path(text) for text in listed(synthetic_labels)]
    if len(maps) != len(sets):
        raise UserError(f"--synthetic_labels: {len(maps)} folders for {len(sets)} sets; give one for each, in order")
    networks = load_extractors([Path(text) for text in listed(medicalnet)], random_features, features)
    if labels not in (known := [*names("labellers"), "none"]):
        raise UserError(f"--labels: expected {', '.join(known)}, got {labels}")
    given = labels == "given" or real_labels is not None
    if segmenter and train is None and not listed(held_out):
        raise UserError(
            "--segmenter: learns from some real brains and is judged on others; give --train, or --held_out"
        )
    learning = _learning(segmenter, augment, segmenter_seeds, seed, str(choose_device(device)), precision)
    classes = read_label_table(label_table) if label_table else None
    common: dict[str, Any] = {
        "rescale": rescale,
        "ignore_affine": ignore_affine,
        "choice": choice,
        "labels": (label_pattern or LABELS) if given or learning else None,
        "labels_needed": given,
    }
    ours = BrainSet(real, real_labels, classes=classes, images=real_images, **common)
    if spacing is not None:
        ours.grid = ours.grid.at_spacing(spacing)
    common |= {"grid": ours.grid, "classes": ours.classes, "images": images or IMAGES}
    each = zip(sets.items(), maps, strict=True)
    finds = {name: partial(BrainSet, folder, own, **common) for (name, folder), own in each}
    found_sets, failures = ({}, {}) if dry_run else _found(finds)
    open_or_examine = examine_evaluation if dry_run else open_evaluation
    open_or_examine(out, {"real": where, "grid": str(ours.grid)}, sets, inputs)
    asked: dict[str, Any] = {"classes": ours.classes, "checkpoint": checkpoint, "refine": refine or None}
    asked |= {"device": device, "precision": precision}
    name = "given" if given else labels
    aside = ("classes", "device", "precision", *(["checkpoint", "refine"] if name == "given" else []))
    labeller: Labeller | None = None if name == "none" else made("labellers", name, asked, aside)
    options = Options(
        protocols=("standard", "paper") if protocol == "both" else (protocol,),
        held_out=frozenset(name if name.startswith("sub-") else f"sub-{name}" for name in listed(held_out)),
        pairs=pairs,
        passes=passes,
        resamples=resamples,
        seed=seed,
        device=str(choose_device(device)),
        train_fields=train_fields,
        learning=learning,
        telling=Telling(classifier, seed, str(choose_device(device)), precision) if classifier else None,
    )
    trained_on = BrainSet(train, **common) if train else None
    if dry_run:
        return rehearse_sets(ours, trained_on, finds, out)
    with runner:
        evaluation = Evaluation(ours, out, labeller, networks, options, trained_on, runner)
        for name, brains in found_sets.items():
            try:
                evaluation.add(name, brains)
            except UserError as error:
                failures[name] = str(error)
            tables = write_evaluation(evaluation, out, failures, seconds or {})
    write_report(out / REPORT, evaluation, tables, failures)
    if not keep:
        evaluation.clear()
    close(evaluation.problems, failures, out, len(sets))


for _protocol in ("standard", "paper"):
    _names = ", ".join(metric.name for metric in declared() if metric.protocol == _protocol)
    evaluate.__doc__ = str(evaluate.__doc__).replace(f"MEASURED_IN_{_protocol}", _names)


def _found(finds: Mapping[str, Callable[[], BrainSet]]) -> tuple[dict[str, BrainSet], dict[str, str]]:
    """The sets that are there by name, and why others aren't.

    Raises:
        UserError: if none is, before anything is measured.
    """
    found, failures = dict[str, BrainSet](), dict[str, str]()
    for name, find in finds.items():
        try:
            found[name] = find()
        except UserError as error:
            failures[name] = str(error)
    if not found:
        raise UserError("; ".join(failures.values()))
    return found, failures


def _learning(
    steps: int, augment: str | None, seeds: int, seed: int, device: str, precision: Precision
) -> Learning | None:
    """How segmenters learn, if they do."""
    if steps < 0:
        raise UserError(f"--segmenter: expected 0 or more steps, got {steps}")
    if not steps:
        if augment is not None:
            raise UserError("--augment: give --segmenter, the steps of each training, too")
        return None
    numbers: list[int | None] = []
    for text in listed(augment):
        if text != ALL and not text.isdecimal():
            raise UserError(f"--augment: expected numbers of subjects, or {ALL}, got {text}")
        numbers.append(None if text == ALL else int(text))
    return Learning(steps, numbers, seeds, seed, device, precision)


def named_sets(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name, from FOLDER or NAME=FOLDER; a folder is called after itself.

    Raises:
        UserError: if two have one name.
    """
    sets: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        path = Path(folder if equals and not Path(text).exists() else text)
        name = name if path != Path(text) else path.resolve().name
        name = name.removesuffix(".gz").removesuffix(".nii").encode("utf-8", "replace").decode()
        if not is_file_name(name):
            raise UserError(f"{text}: a set can't be called {name!r}, which names a folder; give NAME=FOLDER")
        if name in sets or name in ("real", REAL, REAL_BRAINS, HELD_OUT):
            raise UserError(f"{text}: another set is called {name!r} too; give NAME=FOLDER")
        sets[name] = path
    return sets


def close(problems: Mapping[str, str], failures: Mapping[str, str], out: Path, sets: int) -> None:
    """Say where results are.

    Arguments:
        sets: how many there were.

    Raises:
        UserError: if a set or a brain couldn't be used.
    """
    say(f"evaluated: {out / REPORT}, tables in {out / TABLES}")
    if failures:
        name, why = next(iter(failures.items()))
        rest = ", the others are evaluated" if len(failures) < sets else ""
        raise UserError(f"{len(failures)} set(s) could not be evaluated{rest}; {name}: {why}")
    if problems:
        name, why = next(iter(problems.items()))
        raise UserError(f"{len(problems)} brain(s) could not be used, the others are evaluated; {name}: {why}")
