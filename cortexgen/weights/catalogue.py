"""Which weights there are, of the package and in a folder of one's own, by name and version; imports no PyTorch."""

import hashlib
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from cortexgen.errors import UserError

REGISTER, GENERATE, APPEARANCE = "register-mni152-2mm", "generate-mni152-2mm", "appearance-mni152-2mm"
FEATURES = "features-mni152-2mm"
FOLDER = "CORTEXGEN_WEIGHTS"  # variable of the environment: a folder of weights that the package doesn't hold
SCHEMES = ("https", "http", "doi")  # of addresses that weights can be fetched from
SUFFIX, AT = ".safetensors", "@"  # "NAME@VERSION", in a reference and in a file's name
TAKEN = {  # by what, after the class of the module
    "DiffuseMorphModule": "register --checkpoint",
    "FieldDiffusionModule": "generate --checkpoint",
    "AppearanceModule": "generate --appearance",
    "FeatureModule": "evaluate --features",
}


class Weights(NamedTuple):
    """A file of weights, and what its card says.

    Attributes:
        version: 1 where the card has none.
        use: the option that takes them.
        sha256: of the card, "" where it has none.
        problem: why the card, or the version in the file's name, can't be read.
    """

    name: str
    version: int
    path: Path
    use: str
    licence: str = ""
    sha256: str = ""
    problem: str = ""

    @property
    def reference(self) -> str:
        """By which `--checkpoint` finds them."""
        return f"{self.name}{AT}{self.version}"

    def verify(self) -> str:
        """What is wrong with the file: "" where its checksum is the card's."""
        if self.problem or not self.sha256:
            return self.problem or f"{self.path}: no card with a checksum beside it"
        with self.path.open("rb") as file:
            found = hashlib.sha256()
            while part := file.read(2**20):
                found.update(part)
        if found.hexdigest() == self.sha256:
            return ""
        return f"{self.path}: damaged, its sha256 is {found.hexdigest():.12}..., the card's {self.sha256:.12}..."


def card(path: Path) -> dict[str, Any]:
    """The card beside a weights file."""
    beside = path.with_suffix(".json")
    return json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}


def shipped(name: str) -> Path:
    """The file of weights that come with the package."""
    return Path(str(files("cortexgen.weights") / f"{name}{SUFFIX}"))


def shipped_names(stage: str = "") -> list[str]:
    """Of the weights that come with the package, of a kind ("register", "features", ...) or all."""
    return sorted(path.stem for path in shipped("").parent.glob(f"{stage}*{SUFFIX}"))


def own_folder() -> Path | None:
    """The folder of further weights, if one is set.

    Raises:
        UserError: if there is no such folder.
    """
    given = os.environ.get(FOLDER)
    if given and not Path(given).is_dir():
        raise UserError(f"{FOLDER}: {given} is no folder")
    return Path(given) if given else None


def catalogue() -> list[Weights]:
    """All weights that have a name: those of the package, then those of one's own folder.

    Raises:
        UserError: as `own_folder`.
    """
    ours, folder = [shipped(name) for name in shipped_names()], own_folder()
    theirs = sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file()) if folder else []
    return [*map(described, ours), *map(described, theirs)]


def described(path: Path) -> Weights:
    """A file of weights with what its card says; where that can't be read, with the problem."""
    name, _, version = path.stem.partition(AT)
    try:
        about = card(path)
        number = int(version or about.get("version", 1))
        kind, licence, checksum = (about.get(key, "") for key in ("module", "licence", "sha256"))
        if not all(isinstance(word, str) for word in (kind, licence, checksum)):
            raise ValueError("its module, licence and sha256 must be text")
        checksum = checksum.lower()
    except (ValueError, TypeError, AttributeError, OSError, OverflowError, RecursionError) as error:
        problem = f"{path.with_suffix('.json')}: not a card of weights that can be read ({error})"
        return Weights(name, int(version) if version.isdecimal() else 1, path, "unknown", problem=problem)
    return Weights(name, number, path, TAKEN.get(kind, kind or "unknown"), licence, checksum)


def named(reference: str, among: Sequence[Weights] | None = None) -> Weights | None:
    """The weights that "NAME" or "NAME@VERSION" means; None if nothing is called so.

    Without a version, the package's own, so that a folder changes no result; else the highest version there is.

    Raises:
        UserError: if there is no such version; it names those that there are. Or if their card can't be
            read; otherwise as `catalogue`.
    """
    name, at, version = reference.partition(AT)
    there = [weights for weights in (catalogue() if among is None else among) if weights.name == name]
    if not there:
        return None
    if at:
        fitting = [weights for weights in there if str(weights.version) == version]
        if not fitting:
            known = ", ".join(str(number) for number in sorted({weights.version for weights in there}))
            raise UserError(f"{reference}: there is no version {version!r} of {name}; there is {known}")
        there = fitting
    own = [weights for weights in there if weights.path == shipped(name)]
    chosen = own[0] if own else max(there, key=lambda weights: weights.version)
    if chosen.problem:
        raise UserError(chosen.problem)
    return chosen


def find(reference: str) -> Path:
    """The file of weights by their name.

    Raises:
        UserError: if there are none; it lists the names. Otherwise as `named`.
    """
    among = catalogue()
    if (found := named(reference, among)) is not None:
        return found.path
    if reference.partition(":")[0] in SCHEMES:
        raise UserError(
            f"{reference}: an address; `cortexgen weights fetch` brings its weights here, then take their name"
        )
    names = ", ".join(dict.fromkeys(weights.name for weights in among))
    whose = "the package's weights" + (f", or those in {FOLDER}" if own_folder() else "")
    raise UserError(f"{reference}: no such file, nor one of {whose}, {names}")
