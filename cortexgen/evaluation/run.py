"""Sets of synthetic brains against real ones: everything measured, as tables."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortexgen.contracts import Labeller
from cortexgen.errors import UserError
from cortexgen.evaluation import distribution as dist
from cortexgen.evaluation.ageing import People, age_rows
from cortexgen.evaluation.anatomy import region_rows
from cortexgen.evaluation.brain import Anatomy, collect, measure_brain, present_classes
from cortexgen.evaluation.comparison import Metric, Needs, Protocol, declared
from cortexgen.evaluation.conditions import condition_rows
from cortexgen.evaluation.copies import UNITS, Maps, coarse_images, find_copies
from cortexgen.evaluation.discrimination import Classifiers
from cortexgen.evaluation.effects import effect_rows
from cortexgen.evaluation.frame import frame
from cortexgen.evaluation.images import Sides
from cortexgen.evaluation.labelling import RegisteredLabels, measured_labels
from cortexgen.evaluation.patch_copies import detail_grid, detail_mask, details, find_patch_copies
from cortexgen.evaluation.reading import BrainSet
from cortexgen.evaluation.results import Options, SetResult
from cortexgen.evaluation.store import Store
from cortexgen.evaluation.texture import Texture, curve_rows, measured_texture
from cortexgen.evaluation.trained import RegionFeatures
from cortexgen.evaluation.usefulness import Worth, real_sides
from cortexgen.io.labels import label_type
from cortexgen.io.paths import folder_within
from cortexgen.runner.cohort import HERE, Runner

Given = Sides | Sequence[Anatomy] | Sequence[Texture] | Sequence[Tensor]
EVERY = 4  # voxels of the template, of which one is taken for growth
KEPT = 6  # fields of a set, for the page
LABELS, MEASURES = 3, 4  # raised when a labeller or `measure_brain` gives something else for the same brain


def _label(labeller: Labeller, store: Store, kept: set[int], i: int) -> Mapping[str, object]:
    source = store.brains.path / store.names[i]
    found = labeller.label(store.image(i), store.grid, source, store.labels(i))
    maps = {"growth": found.log_jacobian, "velocity": found.velocity if i in kept else None}
    labels: Any = found.labels.numpy().astype(label_type(int(found.labels.max())))
    return {"labels": labels, **{name: field.half() for name, field in maps.items() if field is not None}}


def _measure(classes: Mapping[int, str] | None, store: Store, i: int) -> Mapping[str, object]:
    return measure_brain(store.image(i), measured_labels(store, i), classes, store.grid)


class Evaluation:
    """Real brains and the sets that are compared with them.

    Arguments:
        real: the real brains; their grid is the comparison's.
        out: folder to write to; what is measured of each brain is kept in its folder `work`.
        labeller: labels brains of all sets; None for no anatomy.
        networks: feature extractors.
        train: brains that the generator was trained on, where they are not the real ones.
        runner: does what is done with every brain and pair; as a context, its processes serve all of it.
    """

    def __init__(
        self,
        real: BrainSet,
        out: Path,
        labeller: Labeller | None,
        networks: Sequence[dist.Network],
        options: Options,
        train: BrainSet | None = None,
        runner: Runner = HERE,
    ) -> None:
        self.out, self.labeller, self.networks, self.options = out, labeller, list(networks), options
        self.registered = labeller if isinstance(labeller, RegisteredLabels) else None
        self.runner = runner
        self.real = self._set("real", "real", real)
        self.train = self._set("training", "training", train) if train else None
        self.sets: list[SetResult] = []
        unknown = sorted(options.held_out - set(self.real.store.names) - set(real.problems))
        if unknown:
            raise UserError(f"--held_out: {', '.join(unknown[:5])} not among the {len(real)} real brains")
        self.view = frame(self.real.store)
        for result in self.all_sets:
            if result is not self.train or options.train_fields:
                self._label(result)
        self._real_images: dict[str, Tensor] = {}
        self._worth: Worth | None = None
        self.metrics = declared()

    @property
    def all_sets(self) -> list[SetResult]:
        """The real brains, those of training if they are others, and the sets."""
        return list(filter(None, (self.real, self.train, *self.sets)))

    @property
    def problems(self) -> dict[str, str]:
        """Brains that can't be used, in part or at all, and why."""
        return {f"{r.name}/{name}": why for r in self.all_sets for name, why in r.store.brains.problems.items()}

    @property
    def notes(self) -> list[str]:
        """What was done to images, and what couldn't be measured."""
        treated = [note for result in self.all_sets for note in result.store.brains.notes]
        return treated + [note for result in self.all_sets for note in result.notes]

    def add(self, name: str, brains: BrainSet) -> SetResult:
        """Compare a set with the real brains.

        Raises:
            UserError: if it has no two brains that can be read.
        """
        result = self._set(name, f"set-{name}", brains)
        self.sets.append(result)
        self._label(result)
        if result.anatomy and self.real.anatomy:
            result.attempt("anatomy", lambda: self._anatomy(result))
        if "standard" in self.options.protocols:
            result.attempt("texture", lambda: self._texture(result))
            result.attempt("conditions", lambda: self._conditions(result))
        for protocol in self.options.protocols:
            for network in self.networks:
                if protocol in network.protocols:
                    self._features(result, network, protocol)
            self._images(result, protocol)
        self._copies(result)
        if self.options.telling is not None:
            result.attempt("classifier", lambda: self._told_apart(result))
        if self.options.learning is not None:
            result.attempt("labels' worth", lambda: self._labels_worth(result))
        return result

    def _set(self, name: str, folder: str, brains: BrainSet) -> SetResult:
        store = Store(name, brains, folder_within(self.out, "work", folder), self.runner)
        store.fill()
        brains.require(2, "an evaluation")
        return SetResult(name, store)

    def clear(self) -> None:
        """Remove decoded volumes; measures stay."""
        for result in self.all_sets:
            result.store.clear()

    def _label(self, result: SetResult) -> None:
        labeller = self.labeller
        if labeller is None:
            return
        store = result.store
        kept = {round(k * (len(store) - 1) / (KEPT - 1)) for k in range(KEPT)}
        label, measure = partial(_label, labeller, store, kept), partial(_measure, labeller.classes, store)
        labelled = store.measure("labels", f"{LABELS} {labeller.key}", label, without=["labels", "velocity"])
        key = f"{MEASURES} {LABELS} {labeller.key}"
        result.measured = store.measure("anatomy", key, measure, only=sorted(labelled))
        if not result.measured:
            first = next(iter(store.brains.problems.values()), "")
            result.notes.append(f"{result.name}: no brain could be labelled; the first: {first}")
            return
        present = present_classes(self.real.measured or result.measured)  # all sets have the real brains' columns
        result.anatomy = collect(result.measured, labeller.classes, present)
        if all("growth" in labelled[i] for i in result.anatomy.index):
            maps = [torch.from_numpy(labelled[i]["growth"]) for i in result.anatomy.index]
            result.growth = torch.stack(maps).float()

    def _wanted(self, needs: Needs, protocol: Protocol | None = None) -> list[Metric]:
        protocols = (protocol,) if protocol else self.options.protocols
        return [metric for metric in self.metrics if metric.needs == needs and metric.protocol in protocols]

    def _compare(self, result: SetResult, metrics: Sequence[Metric], given: Given, source: str) -> None:
        """Rows of the metrics that fit both sides, of what they need of the real brains and of the set."""
        for metric in metrics:
            real, synthetic = given.both(metric) if isinstance(given, Sides) else map(metric.rows, given)
            if real is not None and synthetic is not None and metric.fits(real, synthetic):
                row = metric.measure(real, synthetic, source, self.options.resamples, seed=self.options.seed)
                result.rows.append(row)

    def _anatomy(self, result: SetResult) -> None:
        ours, theirs = self.real.anatomy, result.anatomy
        assert ours is not None and theirs is not None and self.labeller is not None
        self._compare(result, self._wanted("anatomy"), (ours, theirs), self.labeller.description)
        if self.registered and self.real.growth is not None and result.growth is not None:
            brain = self.registered.template.mask
            maps = [maps[:, brain][:, ::EVERY] for maps in (self.real.growth, result.growth)]
            self._compare(result, self._wanted("growth"), maps, "registered fields")
        result.regions = region_rows(ours, theirs, self.options.resamples, self.options.seed)
        covariates = [[r.store.covariates(i) for i in a.index] for r, a in ((self.real, ours), (result, theirs))]
        result.effects = effect_rows(ours, theirs, (covariates[0], covariates[1]))
        real, synthetic = (People.of(a.volumes, rows) for a, rows in zip((ours, theirs), covariates, strict=True))
        result.ageing = age_rows(ours.regions, real, synthetic, self.options.resamples, self.options.seed)

    def _texture(self, result: SetResult) -> None:
        for each in (self.real, result):
            if each.texture is None:
                labelled, labeller = each.anatomy.index if each.anatomy else (), self.labeller
                about = (f"{LABELS} {labeller.key}", labeller.classes) if labelled and labeller else ("", None)
                each.texture = measured_texture(each.store, labelled, *about)
        assert self.real.texture is not None and result.texture is not None
        self._compare(result, self._wanted("texture", "standard"), (self.real.texture, result.texture), "images")
        result.curves = curve_rows(self.real.texture, result.texture)

    def _conditions(self, result: SetResult) -> None:
        """What the trained networks of features see of what brains were asked to be."""
        for network in self.networks:
            if isinstance(network, RegionFeatures):
                sides = []
                for each in (self.real, result):
                    seen = network.measure(each.store, self.view, self.options.device)
                    sides.append(([each.store.covariates(i) for i in seen], list(seen.values())))
                counts = self.options.resamples, self.options.seed
                result.conditions = condition_rows(network.answers, sides[0], sides[1], *counts)

    def _features(self, result: SetResult, network: dist.Network, protocol: Protocol) -> None:
        def action() -> None:
            device = self.options.device
            both = [dist.features(r.store, network, protocol, self.view, device) for r in (self.real, result)]
            metrics = [dist.of_network(metric, network) for metric in self._wanted("features", protocol)]
            self._compare(result, metrics, both, network.label)

        result.attempt(f"{network.distance} ({network.name}, {protocol})", action)

    def _images(self, result: SetResult, protocol: Protocol) -> None:
        options = self.options
        counts = options.pairs, options.passes, options.seed
        sides = Sides(self.real.store, result.store, self.view, *counts, self._real_images)

        for metric in (*self._wanted("sets", protocol), *self._wanted("image", protocol)):
            action = partial(self._compare, result, [metric], sides, "images")
            result.attempt(f"{metric.title} ({protocol})", action)

    def _copies(self, result: SetResult) -> None:
        for compared in UNITS:
            result.attempt(f"nearest neighbours in {compared}", partial(self._nearest, result, compared))
        result.attempt("copies of parts", partial(self._patches, result))

    def _told_apart(self, result: SetResult) -> None:
        """Whether a small network tells a set from real brains."""
        assert self.options.telling is not None
        folder = folder_within(self.out, "work", "classifiers")
        how = self.options.telling, self.options.resamples
        result.told_apart = [Classifiers(self.real.store, self.view, folder, *how).row(result.store)]

    def _labels_worth(self, result: SetResult) -> None:
        """What segmenters say of the label maps that came with a set: of training subjects, or of it."""
        options, train = self.options, self.train.store if self.train else None
        assert options.learning is not None
        if self._worth is None:
            sides = real_sides(self.real.store, train, options.held_out)
            folder = folder_within(self.out, "work", "segmenters")
            self._worth = Worth(*sides, folder, options.learning, self.real.store.brains.classes, options.resamples)
        result.worth, result.worth_classes = self._worth.rows(result.name, result.store)

    def _maps(self, result: SetResult, compared: str) -> Maps | None:
        if compared == "images":
            return result.store.names, coarse_images(result.store, self.view)
        return None if result.growth is None else (result.labelled, result.growth)

    def _nearest(self, result: SetResult, compared: str) -> None:
        """Find copies of training subjects."""
        both = self._seen_and_new(lambda each: self._maps(each, compared), result)
        if both is not None:
            mask = self.registered.template.mask if self.registered and compared == "fields" else None
            result.copies.append(find_copies(compared, *both, mask))

    def _patches(self, result: SetResult) -> None:
        """Find parts of training subjects."""
        store, view = self.real.store, self.view
        both = self._seen_and_new(lambda each: details(each.store, view), result)
        assert both is not None
        result.patches = [find_patch_copies(*both, detail_mask(store, view), detail_grid(store, view))]

    def _seen_and_new(
        self, maps: Callable[[SetResult], Maps | None], result: SetResult
    ) -> tuple[Maps, Maps, set[str]] | None:
        """Maps of real brains and of a set's, and names of the held-out ones among the former: the training set's own
        if there is one, and then real brains that aren't in it are held out. None where a side has no maps."""
        real, ours, held_out = maps(self.real), maps(result), set(self.options.held_out)
        if real is None or ours is None:
            return None
        if self.train is not None:
            if (train := maps(self.train)) is None:
                return None
            new = [i for i, name in enumerate(real[0]) if name not in train[0]]
            held_out = {real[0][i] for i in new}
            real = (train[0] + [real[0][i] for i in new], torch.cat([train[1], real[1][new]]))
        return real, ours, held_out
