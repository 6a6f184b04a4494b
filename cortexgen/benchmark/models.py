"""What can be compared: how each generator, or registration, is trained, and what draws from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cortexgen.errors import UserError
from cortexgen.training.presets import find_preset
from cortexgen.weights.reading import APPEARANCE, GENERATE, REGISTER


class Budget(NamedTuple):
    """Of a model's training: minutes on the clock, or steps of its optimizer."""

    minutes: float | None = None
    steps: int | None = None

    def words(self) -> list[object]:
        """As options of the trainer."""
        words: list[object] = ["--trainer.max_epochs", -1, "--trainer.max_steps", self.steps or -1]
        return [*words, "--trainer.max_time", "null" if self.minutes is None else self._clock()]

    def _clock(self) -> str:
        """The minutes as days, hours, minutes and seconds, as the trainer takes them."""
        minutes, seconds = divmod(max(1, round(60 * (self.minutes or 0))), 60)
        hours, minutes = divmod(minutes, 60)
        return ":".join(f"{n:02}" for n in (*divmod(hours, 24), minutes, seconds))

    def __str__(self) -> str:
        return f"{self.minutes:g} min" if self.minutes is not None else f"{self.steps} steps"


@dataclass(frozen=True)
class Fit:
    """A training.

    Attributes:
        configs: presets, one laid over the other.
        name: of its run folder.
        data: what it reads: "train", the cohort, or "registered", what `register` made of it.
        options: of the verb, beside.
        limited: whether the budget is its own; otherwise it ends where its options say.
    """

    configs: Sequence[str]
    name: str = "run"
    data: str = "train"
    options: Sequence[object] = ()
    limited: bool = True

    @property
    def class_name(self) -> str:
        """Of the module that it trains."""
        models = [yaml.safe_load(Path(find_preset(name)).read_text(encoding="utf-8"))["model"] for name in self.configs]
        return str(next(model["class_path"] for model in models if "class_path" in model))


@dataclass(frozen=True)
class Model:
    """A generator or a registration.

    Attributes:
        title: in tables, where it is the paper's, too.
        fits: trainings, in their order; none for weights that come with the package, or a method without any.
        given: options of the command that draws, or registers, "{name}" being the checkpoint of that training.
        shipped: names of the package's weights that it takes.
        registered: whether its training needs the cohort registered first.
        source: paper that it follows.
    """

    title: str
    fits: Sequence[Fit] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    shipped: Sequence[str] = ()
    registered: bool = False
    source: str = ""

    @property
    def limited(self) -> bool:
        """Whether it is trained within a budget."""
        return any(fit.limited for fit in self.fits)


def _image_model(title: str, preset: str, source: str) -> Model:
    given = {"generator": "images", "checkpoint": "{run}"}
    return Model(title, [Fit([f"baselines/{preset}.yaml"])], given, source=source)


SHORT = ("appearance.yaml", "small/appearance.yaml")
PRIOR_ALONE: tuple[object, ...] = ("--model.correction", 0, "--model.cross_fit", 0)
PRIOR_ALONE += ("--trainer.limit_val_batches", 0, "--trainer.max_steps", 1, "--trainer.max_epochs", -1)
GENERATORS: dict[str, Model] = {
    "vaegan": _image_model("VAE-GAN", "vaegan", "Larsen et al., ICML 2016; Kwon et al., MICCAI 2019"),
    "alphawgan": _image_model("α-WGAN", "alphawgan", "Kwon et al., MICCAI 2019"),
    "hagan": _image_model("HA-GAN", "hagan", "Sun et al., IEEE JBHI 2022"),
    "latentdiffusion": _image_model("MONAI-LDM", "latentdiffusion", "Pinaya et al., 2022, by MONAI"),
    "medsyn": _image_model("MedSyn", "medsyn", "Xu et al., IEEE TMI 2024, covariates in place of text"),
    "cdpm": _image_model("cDPM", "cdpm", "Peng et al., MICCAI 2023"),
    "deformation-model": Model(
        "principal components of fields", given={"deformation_model": "{registered}"}, registered=True
    ),
    "cortexgen-trained": Model(
        "cortexgen, stages 2 and 3 trained here",
        [
            Fit(["generate.yaml"], "fields", "registered", PRIOR_ALONE, limited=False),
            Fit(SHORT, "appearance", "train", ("--data.registered", "{registered}")),
        ],
        {"checkpoint": "{fields}", "appearance": "{appearance}"},
        registered=True,
    ),
    "cortexgen": Model("cortexgen, its own weights", shipped=(GENERATE, APPEARANCE)),
}
REGISTRATIONS: dict[str, Model] = {
    "affine": Model("affine alone", given={"method": "affine"}),
    "syn": Model("ANTs SyN", given={"method": "syn"}, source="Avants et al., 2008"),
    "greedy": Model("greedy", given={"method": "greedy"}, source="Yushkevich et al., 2016"),
    "voxelmorph": Model(
        "VoxelMorph",
        [Fit(["register.yaml", "baselines/voxelmorph.yaml"])],
        {"checkpoint": "{run}", "refine": 0},
        source="Dalca et al., 2019",
    ),
    "diffusemorph": Model(
        "DiffuseMorph, as the paper has it",
        [Fit(["register.yaml", "baselines/diffusemorph.yaml"])],
        {"checkpoint": "{run}", "refine": 0},
        source="Kim et al., ECCV 2022",
    ),
    "pirate": Model(
        "PIRATE",
        [Fit(["baselines/pirate.yaml"], data="registered")],
        {"method": "pirate", "checkpoint": "{run}"},
        registered=True,
        source="Hu et al., ICLR 2024",
    ),
    "pirate+": Model(
        "PIRATE+",
        [Fit(["baselines/pirate.yaml"], "denoiser", "registered"), Fit(["baselines/pirateplus.yaml"])],
        {"method": "pirate+", "checkpoint": "{run}"},
        registered=True,
        source="Hu et al., ICLR 2024",
    ),
    "one-pass": Model("cortexgen, one pass", given={"refine": 0}, shipped=[REGISTER]),
    "cortexgen": Model("cortexgen", shipped=[REGISTER]),
    "refined": Model("cortexgen, 20 steps", given={"refine": 20}, shipped=[REGISTER]),
    "prior": Model("cortexgen, stage 2 as a prior", given={"method": "prior"}, shipped=(REGISTER, GENERATE)),
}


def chosen(names: Sequence[str], known: Mapping[str, Model], kind: str) -> dict[str, Model]:
    """Models by name; all of them unless some are given.

    Raises:
        UserError: for a name that there isn't.
    """
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{kind}: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return {name: known[name] for name in names or known}
