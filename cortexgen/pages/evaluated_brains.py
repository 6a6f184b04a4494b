"""The pictures of brains on the page of an evaluation. Volumes are read when they are drawn, few at a time."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.evaluation.copies import Copies
from cortexgen.evaluation.labelling import RegisteredLabels, measured_labels
from cortexgen.evaluation.results import SetResult
from cortexgen.evaluation.run import Evaluation
from cortexgen.figures.brains import cohort
from cortexgen.figures.comparison import neighbours, plain
from cortexgen.figures.deformations import log_jacobian_map, registration
from cortexgen.figures.planes import PLANES, PlaneName
from cortexgen.io import Grid
from cortexgen.metrics.voxelwise import log_jacobian_shift, log_jacobian_spread
from cortexgen.pages.report import Report
from cortexgen.pages.viewer import MOST, Viewer
from cortexgen.spatial import integrate, log_jacobian, resample, resample_field, warp

SHOWN, NEAREST = 6, 3  # brains of a set
MANY = 3  # sets; pictures of more are smaller
Slabs = dict[PlaneName, dict[str, list[Tensor]]]


def shown_brains(result: SetResult, n: int = SHOWN) -> list[int]:
    """Indices of brains evenly spaced in the order of the set, labelled ones where there are any."""
    every = result.anatomy.index if result.anatomy else range(len(result.store))
    n = min(n, len(every))
    return [every[round(k * (len(every) - 1) / max(n - 1, 1))] for k in range(n)]


def _dpi(evaluation: Evaluation) -> int:
    return 100 if len(evaluation.sets) <= MANY else 70


def middle(evaluation: Evaluation) -> list[int]:
    """The voxel (D, H, W) in the middle of the real brains' box."""
    view = evaluation.view
    return [(low + high) // 2 for low, high in zip(view.low, view.high, strict=True)]


def turning(page: Report, evaluation: Evaluation) -> None:
    """Brains of each set, the real ones first, that turn and scroll: as many as a page has room for."""
    labeller, sets = evaluation.labeller, (evaluation.real, *evaluation.sets)[:MOST]
    viewer = Viewer(labeller.classes if labeller else None)
    for result in sets:
        store, kept = result.store, shown_brains(result)  # whose fields were kept
        n = min(MOST // len(sets), len(kept))
        for i in (kept[round(k * (len(kept) - 1) / max(n - 1, 1))] for k in range(n)):
            labels = measured_labels(store, i) if i in result.measured else None
            people = {key: value for key, value in store.covariates(i).items() if key in ("age", "sex")}
            words = ", ".join(
                f"{key} {value:.4g}" if key == "age" else f"{key} {value}" for key, value in people.items()
            )
            group = f"{result.name} (N = {len(store)})"
            viewer.add(group, store.names[i], store.image(i), store.grid, labels, _field(evaluation, result, i), words)
    page.viewer(viewer, "Brains of each set, coronal slices.")


def _field(evaluation: Evaluation, result: SetResult, i: int) -> tuple[Tensor, Grid] | None:
    """The field that labelled a brain, and its grid."""
    velocity, labeller = result.store.measured("labels", i, "velocity"), evaluation.registered
    if velocity is None or labeller is None:
        return None
    frame = labeller.registrar.frame
    return integrate(torch.from_numpy(velocity).float()[None], frame.steps)[0], frame.velocity_grid


def slices(page: Report, evaluation: Evaluation) -> None:
    """Slices of every set in three planes, the real brains first, a figure a plane; then their labels."""
    images, labels = _slabs(evaluation)
    for plane, rows in images.items():
        names = ", ".join(rows).replace(r"\$", "$")
        figure = cohort(rows, _thin(evaluation, plane), plane)
        page.figure(figure, f"{plane.capitalize()} slices. Rows: {names}.", dpi=_dpi(evaluation))
    for plane, rows in labels.items():
        shown = {name: images[plane][name] for name in rows}
        figure = cohort(shown, _thin(evaluation, plane), plane, labels=rows)
        colours = ", FreeSurfer's colours" if evaluation.registered else ""
        page.figure(figure, f"The labels of the same brains, {plane} slices{colours}.", dpi=_dpi(evaluation))


def _thin(evaluation: Evaluation, plane: PlaneName) -> Grid:
    """The grid of one slice."""
    grid, axis = evaluation.real.store.grid, PLANES[plane].axis
    low, high = [0, 0, 0], [n - 1 for n in grid.shape]
    low[axis] = high[axis] = middle(evaluation)[axis]
    return grid.box(low, high)


def _slabs(evaluation: Evaluation) -> tuple[Slabs, Slabs]:
    """Images and labels of the brains that are shown, one slice thick, by plane and set."""
    place = middle(evaluation)
    images: Slabs = {plane: defaultdict(list) for plane in PLANES}
    labels: Slabs = {plane: defaultdict(list) for plane in ("axial", "coronal")}
    for result in (evaluation.real, *evaluation.sets):
        name = plain(f"{result.name} (N = {len(result.store)})")
        for i in shown_brains(result):
            image = result.store.image(i)[0]
            found = measured_labels(result.store, i) if i in result.measured else None
            for plane, slabs in images.items():
                axis = PLANES[plane].axis
                slabs[name].append(image.narrow(axis, place[axis], 1).clone())
                if found is not None and plane in labels:
                    labels[plane][name].append(found[0].narrow(axis, place[axis], 1).clone())
    return images, {plane: rows for plane, rows in labels.items() if rows}


def registrations(page: Report, evaluation: Evaluation, labeller: RegisteredLabels) -> None:
    """The template registered to one brain of each set, in template space: the paper's fixed, field and moving.

    The fields are those that labelling found; no network runs here.
    """
    for result in evaluation.sets:
        found = result.field()
        if found is None:
            continue
        i, velocity = found
        name = f"{result.name}, {result.store.names[i]}"
        try:
            moving, fixed, warped, u = _registered(labeller, result, i, velocity)
        except UserError as error:
            page.text(f"{name}: no picture, {error}")
            continue
        growth = -log_jacobian(u[None])[0, 0]
        figure = registration(moving[0], fixed[0], warped[0], u, growth, labeller.registrar.grid, plain(name))
        page.figure(figure, f"{name} (fixed), the field, and the template (moving).", dpi=_dpi(evaluation))


def _registered(
    labeller: RegisteredLabels, result: SetResult, i: int, velocity: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Moving, fixed and warped image `[1, D, H, W]` and displacement `[3, D, H, W]` on the network's grid."""
    registrar, store = labeller.registrar, result.store
    grid, coarse = registrar.grid, registrar.frame.velocity_grid
    fixed = registrar.prepared(store.image(i), store.grid, store.brains.path / store.names[i])
    (moving, target), _ = registrar.pair(registrar.atlas(max(grid.spacing)), fixed)
    flow = integrate(velocity[None], registrar.frame.steps)
    u = resample_field(flow, coarse.torch_affine, grid.shape, grid.torch_affine)
    return moving[0].cpu(), target[0].cpu(), warp(moving.cpu(), u)[0], u[0]


def growth_maps(page: Report, evaluation: Evaluation, labeller: RegisteredLabels) -> None:
    """Where on the template log |J| of each set differs from that of the real brains, in mean and in spread."""
    real, mask = evaluation.real.growth, labeller.template.mask
    maps: dict[str, tuple[Tensor, Tensor]] = {}
    for result in evaluation.sets:
        if real is None or result.growth is None or min(len(real), len(result.growth)) < 2:
            continue
        shift = log_jacobian_shift(real, result.growth, mask)
        ratio = log_jacobian_spread(real, result.growth, mask).log2()
        maps[result.name] = (shift.nan_to_num(0.0), ratio.nan_to_num(0.0).clamp(-10, 10))
    if not maps:
        return
    grid = labeller.registrar.grid
    background = labeller.registrar.atlas(max(grid.spacing)).model_image[0, 0]
    brain = mask.reshape(mask.shape[-3:])
    limits = [_limit([pair[k][0][brain] for pair in maps.values()], step) for k, step in enumerate((0.05, 0.25))]
    for name, pair in maps.items():
        for values, limit, label, caption in zip(
            pair,
            limits,
            ("mean log |J|, set − real", "log₂ (SD of log |J| in the set / in real brains); −1 half, +1 double"),
            (
                "growth from the template, mean of the set less that of the real brains; red where the set is larger",
                "spread of that growth over the set relative to real brains; blue where the set varies too little",
            ),
            strict=True,
        ):
            fine = resample(values[None], labeller.grid.torch_affine, grid.shape, grid.torch_affine)[0, 0]
            figure = log_jacobian_map(fine, background, grid, plain(name), limit, label)
            page.figure(figure, f"{name}: {caption}. One colour scale for all sets.", dpi=_dpi(evaluation))


def _limit(values: Sequence[Tensor], step: float) -> float:
    """The 99th percentile of absolute values, rounded up."""
    flat = torch.cat([v.flatten() for v in values]).abs().double().numpy()
    flat.sort()
    top = float(flat[int(0.99 * (len(flat) - 1))])
    return max(math.ceil(round(top / step, 3)) * step, step)


def nearest(page: Report, evaluation: Evaluation, result: SetResult, found: Copies) -> None:
    """The samples of a set that are nearest to a training subject in their images, beside it."""
    near, pairs = found.result.generated, []
    for i in near.distance.argsort()[:NEAREST].tolist():
        name = found.train[int(near.subject[i])]
        subject, mirrored = _training(evaluation, name), bool(near.mirrored[i])
        of_reference = float(near.distance[i]) / found.result.median_held_out
        caption = (
            f"{found.samples[i]}: distance {float(near.distance[i]):.3g}, {of_reference:.2f} of the reference's median "
            f"and {float(near.ratio[i]):.2f} of that to the second nearest"
        ) + ", flagged as a copy" * bool(found.result.copies[i])
        image = result.store.image(result.store.names.index(found.samples[i]))[0]
        pairs.append((caption, name + ", mirrored" * mirrored, image, subject.flip(-1) if mirrored else subject))
    figure = neighbours(pairs, evaluation.real.store.grid, middle(evaluation))
    caption = (
        f"{result.name}: the samples nearest to a training subject in their images, that subject, and the difference"
    )
    page.figure(figure, caption + ", brightest where it is half of the images' window or more.", dpi=_dpi(evaluation))


def _training(evaluation: Evaluation, name: str) -> Tensor:
    """A training subject's image, `[D, H, W]`."""
    stores = [result.store for result in (evaluation.train, evaluation.real) if result is not None]
    store = next(store for store in stores if name in store.names)
    return store.image(store.names.index(name))[0]
