"""Modules from checkpoints and weights files, which name the class that they are of."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cortexgen.contracts import Registration
from cortexgen.errors import UserError
from cortexgen.generation.velocities import Velocities
from cortexgen.io import Grid
from cortexgen.modules.appearance import AppearanceModule
from cortexgen.modules.baselines.base import BaselineModule
from cortexgen.modules.features import FeatureModule
from cortexgen.runner.verbosity import note
from cortexgen.weights.catalogue import APPEARANCE, FEATURES, GENERATE, REGISTER, find, shipped, shipped_names

MODULES = "cortexgen.modules"  # where a class without a path is looked for
METADATA = "cortexgen"
STATISTICS = "contract."  # tensors of the contract, beside the parameters


def _named(path: str | Path) -> Path:
    """A file of weights by its path, or where no such file lies by the name that `catalogue.find` knows.

    Raises:
        UserError: if there is neither.
    """
    return _file(Path(path)) if Path(path).exists() else find(str(path))


def _file(path: Path) -> Path:
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected a .ckpt or .safetensors file in it")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    return path


def _line(error: BaseException) -> str:
    """What an error says, in a line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint that cortexgen wrote.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    _file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise UserError(f"{path}: not a checkpoint that can be read ({_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("cortexgen"), dict):
        raise UserError(f"{path}: not written by cortexgen")
    missing = [key for key in ("state_dict", "hyper_parameters", "global_step") if key not in content]
    if missing:
        raise UserError(f"{path}: a damaged checkpoint, without {', '.join(missing)}")
    return content


def module_class(name: object, path: Path) -> type[LightningModule]:
    """The class of a module by its class path, or by its name alone if it is one of this package's.

    Raises:
        UserError: if it can't be imported, or is no stage of cortexgen; `path` is the file that names it.
    """
    package, _, kind = str(name).rpartition(".")
    try:
        found = getattr(import_module(package or MODULES), kind)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: its module {name} cannot be imported ({_line(error)})") from None
    if not (isinstance(found, type) and issubclass(found, LightningModule) and hasattr(found, "class_path")):
        raise UserError(f"{path}: its module {name} is no StageModule of cortexgen")
    return found


def _built(kind: type[LightningModule], parameters: Any, state: Mapping[str, Tensor], path: Path) -> Any:
    """A module with its parameters.

    Raises:
        UserError: if it doesn't take them, or they are no numbers.
    """
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise UserError(f"{path}: its parameter {name} is infinite or no number, of a training that failed")
    try:
        module = kind(**parameters)
        module.load_state_dict(dict(state))
    except (TypeError, ValueError, KeyError, RuntimeError, UserError) as error:
        raise UserError(f"{path}: does not fit this version's {kind.__name__} ({_line(error)})") from None
    return module


def load_checkpoint(path: Path) -> tuple[Any, int]:
    """The module of a Lightning checkpoint that cortexgen wrote, and its training steps.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    content = read_checkpoint(path)
    parameters = {k: v for k, v in content["hyper_parameters"].items() if not k.startswith("_")}
    guess = "FieldDiffusionModule" if "log_volume_mean" in content["cortexgen"] else "DiffuseMorphModule"  # until 0.1
    kind = module_class(content.get("cortexgen_module", guess), path)
    module = _built(kind, parameters, content["state_dict"], path)
    module.contract = content["cortexgen"]
    return module, int(content["global_step"])


def load_weights(path: Path) -> Any:
    """The module in a safetensors file of `save_weights`, ready for inference.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    _file(path)
    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            state = {key: content.get_tensor(key).float() for key in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file that can be read ({_line(error)})") from None
    if METADATA not in metadata:
        raise UserError(f"{path}: not written by `cortexgen export`")
    try:
        described = json.loads(metadata[METADATA])
        name, parameters, contract = (described[key] for key in ("module", "hyper_parameters", "contract"))
        contract["template"]["hash"], contract["grid"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its description is damaged ({type(error).__name__}: {_line(error)})") from None
    kind = module_class(described.get("class_path", name), path)
    parts = {k: v for k, v in state.items() if not k.startswith(STATISTICS)}
    module = _built(kind, parameters, parts, path)
    module.contract = contract
    for key, value in state.items():
        if key.startswith(STATISTICS):
            *folders, name = key.removeprefix(STATISTICS).split(".")
            place = module.contract
            for folder in folders:
                place = place.setdefault(folder, {})
            place[name] = value
    return module.eval()


def load(path: str | Path | None = None, name: str = REGISTER) -> Any:
    """A stage from a safetensors file, a Lightning checkpoint, or the package's weights, by default those of `name`.

    Arguments:
        path: a file, which is what its first bytes say, whatever its name; or the name of weights of the package.
        name: of the weights to take without a path.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    path = shipped(name) if path is None else _named(path)
    with path.open("rb") as file:
        start = file.read(9)
    tensors = start[8:] == b"{"  # of a safetensors file: eight bytes of length, which may be any, and JSON
    pickled = path.suffix == ".ckpt" or (not tensors and (start[:2] == b"PK" or start[:1] == b"\x80"))
    module = load_checkpoint(path)[0] if pickled else load_weights(path)
    return module.eval()


def start(module: LightningModule, path: str | Path) -> None:
    """Give a module the parameters of trained weights, to go on training from; one line says which it has more.

    Arguments:
        path: a file, or the name of weights that come with the package.

    Raises:
        UserError: if they are of a class that the module's is not, or parameters of both differ in shape.
    """
    source = load(path)
    if not isinstance(module, type(source)):
        raise UserError(f"{path}: weights of {type(source).__name__}, the configuration's is {type(module).__name__}")
    cast(Any, module).shape_like(source)
    ours, theirs = module.state_dict(), source.state_dict()
    for name, value in theirs.items():
        shapes = [list(value.shape), list(ours[name].shape) if name in ours else "missing"]
        if shapes[0] != shapes[1]:
            raise UserError(f"{path}: its parameter {name} is {shapes[0]}, the configuration's is {shapes[1]}")
    module.load_state_dict(theirs, strict=False)
    fresh = [name for name in ours if name not in theirs]
    note(f"starting from {path}" + (f"; {len(fresh)} parameters are new: {fresh[0]}, ..." if fresh else ""))


def load_registration(path: str | Path | None = None) -> Any:
    """A trained registration from a file, or the package's, by name or without one `REGISTER`.

    Raises:
        UserError: if the file holds something else, or says not what it was trained on.
    """
    return _stage(path, REGISTER, Registration, "register needs stage 1's", "grid")


def load_generator(path: str | Path | None = None) -> Any:
    """A trained distribution of velocities from a file, or the package's, by name or without one `GENERATE`.

    Raises:
        UserError: if the file holds something else, or says not what it was trained on.
    """
    module = _stage(path, GENERATE, Velocities, "generate needs stage 2's", "grid", "image_grid")
    missing = [key for key in ("integration_steps", "mean", "scale") if key not in module.contract]
    if missing:
        raise UserError(f"{path}: its description is damaged, {', '.join(missing)} missing")
    return module


def load_appearance(path: str | Path | None = None) -> Any:
    """A trained appearance from a file, or the package's, by name or without one `APPEARANCE`.

    Raises:
        UserError: if the file holds something else, or says not what it was trained on.
    """
    module = _stage(path, APPEARANCE, AppearanceModule, "appearance needs stage 3's", "grid")
    missing = [key for key in ("covariates", "people", "deviation") if key not in module.contract]
    if missing:
        raise UserError(f"{path}: its description is damaged, {', '.join(missing)} missing")
    return module


def load_features(path: str | Path | None = None) -> Any:
    """A trained network of features from a file, or the package's, by name or without one `FEATURES`.

    Raises:
        UserError: if the file holds something else, or says not what it was trained on.
    """
    module = _stage(path, FEATURES, FeatureModule, "features need a FeatureModule's", "grid")
    missing = [key for key in ("answers", "volumes") if key not in module.contract]
    if missing:
        raise UserError(f"{path}: its description is damaged, {', '.join(missing)} missing")
    return module


def load_image_generator(path: str | Path) -> Any:
    """A trained generator of images, one of `modules.baselines`, from a file.

    Raises:
        UserError: if the file holds something else, or says not what it was trained on.
    """
    module = load(path)
    if not isinstance(module, BaselineModule):
        raise UserError(
            f"{path}: weights of {module.stage or type(module).__name__}; --generator images needs a baseline's"
        )
    _check_grids(module, path, "grid", "image_grid")
    return module


def _stage(path: str | Path | None, name: str, kind: type, needs: str, *grids: str) -> Any:
    module = load(path, name)
    if not isinstance(module, kind):
        names = ", ".join(shipped_names(name.split("-")[0]))
        raise UserError(f"{path}: weights of {module.stage or type(module).__name__}; {needs}, such as {names}")
    _check_grids(module, path, *grids)
    return module


def _check_grids(module: Any, path: object, *names: str) -> None:
    template = module.contract.get("template")
    if not (isinstance(template, Mapping) and isinstance(template.get("hash"), str)):
        raise UserError(f"{path}: its description is damaged, without a valid template")
    if not isinstance(module.contract.get("integration_steps", 0), int):
        raise UserError(f"{path}: its description is damaged, without a valid integration_steps")
    for name in names:
        try:
            Grid.from_dict(module.contract[name])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: its description is damaged, without a valid {name} ({_line(error)})") from None
