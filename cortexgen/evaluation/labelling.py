"""Where the labels of a comparison come from: always the same way for real and synthetic brains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortexgen.atlas.template import MNI152, load_template
from cortexgen.contracts import Labelled, Labeller
from cortexgen.errors import UserError
from cortexgen.evaluation.store import Store
from cortexgen.io import Grid
from cortexgen.registration.registrar import Registrar
from cortexgen.runner.precision import Precision
from cortexgen.spatial import log_jacobian, warp_labels
from cortexgen.weights.models import network


class GivenLabels(Labeller):
    """The label maps that came with the brains."""

    def __init__(self, classes: Mapping[int, str] | None = None) -> None:
        self.classes = classes
        self.description = "label maps given with the images of both sides"
        self.key = f"given {sorted((classes or {}).items())}"

    def label(self, image: Tensor, grid: Grid, source: Path, given: Tensor | None = None) -> Labelled:
        if given is None:
            raise UserError(f"{source.parent}: {source.name} has no label map")
        return Labelled(given)


class RegisteredLabels(Labeller):
    """The template's labels, warped onto each brain by stage 1's answer to it alone.

    That to its mirror image, which `register` averages it with, takes as long again, for .002 of Dice and .02 SD of a
    region's volume in the mean of 12 people (`tests/benchmarks/labelling.py`).

    Arguments:
        checkpoint: other weights than the package's.
        refine: gradient steps on each pair after the network's answer.
        device, precision: as of `cortexgen register`.

    Attributes:
        grid: of the log-Jacobians.
        template: on it.
    """

    def __init__(
        self, checkpoint: Path | None = None, refine: int = 0, device: str = "auto", precision: Precision = "auto"
    ) -> None:
        self._options = (checkpoint, refine, device, precision)
        registration = network(checkpoint, refine, 0.0, mirror=False)
        original = load_template(MNI152)
        self.registrar = Registrar(registration, original, device, precision)
        self.grid = self.registrar.frame.velocity_grid
        self.template = original.to(self.grid)
        self.classes: Mapping[int, str] | None = dict(enumerate(original.classes))
        made_by = registration.describe()
        weights = made_by["Weights"]
        steps = f", {refine} refinement steps" if refine else ""
        self.description = f"{original.name}'s labels, registered to every brain (weights {weights:.12}{steps})"
        self.key = f"register {weights} {refine} once {original.hash}"

    def __reduce__(self) -> tuple[Any, ...]:  # other processes read the weights themselves
        return RegisteredLabels, self._options

    def label(self, image: Tensor, grid: Grid, source: Path, given: Tensor | None = None) -> Labelled:
        moving = self.registrar.atlas(min(grid.spacing))
        solved, maps = self.registrar.solve(moving, self.registrar.prepared(image, grid, source))
        assert moving.space.labels is not None
        positions = maps.positions(maps.forward(solved.field))
        labels, _ = warp_labels(moving.space.labels[None], positions, len(moving.space.classes))
        growth = log_jacobian(maps.flow(solved.field, back=True))[0]
        return Labelled(labels[0], growth, solved.field[0])


def measured_labels(store: Store, i: int) -> Tensor:
    """The label map of brain i that was measured, `[1, D, H, W]`, int64."""
    return torch.from_numpy(np.asarray(store.measured("labels", i, "labels"), dtype=np.int64))
