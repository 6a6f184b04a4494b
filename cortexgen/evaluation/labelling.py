"""Where the labels of a comparison come from: always the same way for real and synthetic brains."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from cortexgen.atlas.template import MNI152, Template, load_template
from cortexgen.errors import UserError
from cortexgen.evaluation.store import Store
from cortexgen.io import Grid
from cortexgen.registration.registrar import Registrar
from cortexgen.runner.precision import Precision
from cortexgen.spatial import integrate, log_jacobian, warp_labels
from cortexgen.weights import load_registration

Labels = Literal["register", "given", "none"]


class Labelled(NamedTuple):
    """What is known of a brain's anatomy.

    Attributes:
        labels: `[1, D, H, W]`, int64.
        log_jacobian: growth of the template's voxels in it, `[1, d, h, w]` on the labeller's field grid, or None.
        velocity: that takes the template to it, `[3, d, h, w]` in voxels of that grid, or None.
    """

    labels: Tensor
    log_jacobian: Tensor | None = None
    velocity: Tensor | None = None


class Labeller(Protocol):
    """Labels for brains; picklable, in few bytes, to be used by several processes.

    Attributes:
        description: where labels come from, for reports.
        key: what they depend on.
        classes: names by index; None where every map has its own indices.
    """

    description: str
    key: str
    classes: Mapping[int, str] | None

    def label(self, store: Store, i: int) -> Labelled:
        """Brain i of a set.

        Raises:
            UserError: if there are none for it.
        """


class GivenLabels:
    """The label maps that came with the brains."""

    def __init__(self, classes: Mapping[int, str] | None) -> None:
        self.classes = classes
        self.description = "label maps given with the images of both sides"
        self.key = f"given {sorted((classes or {}).items())}"

    def label(self, store: Store, i: int) -> Labelled:
        labels = store.labels(i)
        if labels is None:
            raise UserError(f"{store.brains.path}: {store.names[i]} has no label map")
        return Labelled(labels)


class RegisteredLabels:
    """The template's labels, warped onto each brain by stage 1.

    Arguments:
        checkpoint: other weights than the package's.
        refine: gradient steps on each pair after the network's answer.
        device, precision: as of `cortexgen register`.

    Attributes:
        grid: of the log-Jacobians.
        template: on it.
    """

    grid: Grid
    template: Template

    def __init__(
        self, checkpoint: Path | None = None, refine: int = 0, device: str = "auto", precision: Precision = "auto"
    ) -> None:
        self._options = (checkpoint, refine, device, precision)
        module = load_registration(checkpoint)
        module.refine, module.mirror, module.refine_intensity = refine, True, 0.0
        try:
            module.check_mirror()
        except UserError:
            module.mirror = False
        original = load_template(MNI152)
        self.registrar = Registrar(module, original, device, precision)
        self.grid = self.registrar.velocity_grid
        self.template = original.to(self.grid)
        self.classes: Mapping[int, str] | None = dict(enumerate(original.classes))
        weights = module.weights_hash()
        steps = f", {refine} refinement steps" if refine else ""
        self.description = f"{original.name}'s labels, registered to every brain (weights {weights:.12}{steps})"
        self.key = f"register {weights} {refine} {module.mirror} {original.hash}"

    def __reduce__(self) -> tuple[Any, ...]:  # other processes read the weights themselves
        return RegisteredLabels, self._options

    def label(self, store: Store, i: int) -> Labelled:
        registrar, grid = self.registrar, store.grid
        fixed = registrar.prepared(store.image(i), grid, Path(store.brains.path, store.names[i]))
        moving = registrar.atlas(min(grid.spacing))
        images, maps = registrar.pair(moving, fixed)
        with registrar.arithmetic():
            velocity, _ = registrar.module.solve(*images)
        velocity = velocity.float().cpu()
        assert moving.space.labels is not None
        positions = maps.positions(maps.forward(velocity))
        labels, _ = warp_labels(moving.space.labels[None], positions, len(moving.space.classes))
        growth = log_jacobian(integrate(velocity, maps.steps, inverse=True))[0]
        return Labelled(labels[0], growth, velocity[0])
