"""Trained weights: safetensors files whose metadata rebuild the module, each with a card (.json) beside it."""

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cortexgen.errors import UserError
from cortexgen.io import atomic
from cortexgen.modules import DiffuseMorphModule, FieldDiffusionModule
from cortexgen.modules.base import StageModule

REGISTER, GENERATE = "register-mni152-2mm", "generate-mni152-2mm"
METADATA = "cortexgen"
STATISTICS = "contract."  # tensors of the contract, beside the parameters
MODULES: dict[str, type[StageModule]] = {c.__name__: c for c in (DiffuseMorphModule, FieldDiffusionModule)}


def shipped(name: str) -> Path:
    """The file of weights that come with the package."""
    return Path(str(files("cortexgen.weights") / f"{name}.safetensors"))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint that cortexgen wrote.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise UserError(f"{path}: not a checkpoint that can be read ({str(error).splitlines()[0]})") from None
    if "cortexgen" not in content:
        raise UserError(f"{path}: not written by cortexgen")
    return content


def load_checkpoint(path: Path) -> tuple[StageModule, int]:
    """The module of a Lightning checkpoint that cortexgen wrote, and its training steps.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    content = read_checkpoint(path)
    parameters = {k: v for k, v in content["hyper_parameters"].items() if not k.startswith("_")}
    kind = FieldDiffusionModule if "log_volume_mean" in content["cortexgen"] else DiffuseMorphModule
    module = kind(**parameters)
    module.load_state_dict(content["state_dict"])
    module.contract = content["cortexgen"]
    return module, int(content["global_step"])


def load_weights(path: Path) -> StageModule:
    """The module in a safetensors file of `save_weights`, ready for inference.

    Raises:
        UserError: if it is missing, damaged, or from elsewhere.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            state = {key: content.get_tensor(key).float() for key in content.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file that can be read ({error})") from None
    if METADATA not in metadata:
        raise UserError(f"{path}: not written by `cortexgen export`")
    described = json.loads(metadata[METADATA])
    module = MODULES[described["module"]](**described["hyper_parameters"])
    module.load_state_dict({k: v for k, v in state.items() if not k.startswith(STATISTICS)})
    module.contract = described["contract"]
    for key, value in state.items():
        if key.startswith(STATISTICS):
            *folders, name = key.removeprefix(STATISTICS).split(".")
            place = module.contract
            for folder in folders:
                place = place.setdefault(folder, {})
            place[name] = value
    return module.eval()


def load(path: str | Path | None = None, name: str = REGISTER) -> StageModule:
    """A stage from a safetensors file, a Lightning checkpoint, or by default the package's weights of that name."""
    path = shipped(name) if path is None else Path(path)
    module = load_checkpoint(path)[0] if path.suffix == ".ckpt" else load_weights(path)
    return module.eval()


def load_generator(path: str | Path | None = None) -> FieldDiffusionModule:
    """Stage 2 from a file, or the package's.

    Raises:
        UserError: if the file holds stage 1.
    """
    module = load(path, GENERATE)
    if not isinstance(module, FieldDiffusionModule):
        raise UserError(f"{path}: weights of stage 1; generate needs stage 2's")
    return module


def split_tensors(content: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A nested mapping without its tensors, and those by dotted name."""
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            plain[key], below = split_tensors(value, f"{prefix}{key}.")
            tensors |= below
        else:
            plain[key] = value
    return plain, tensors


def save_weights(path: Path, module: StageModule, half: bool = False) -> str:
    """Write a module's parameters and what rebuilds it; returns the file's sha256.

    Statistics of fields are written in float16 where they are many and that keeps three digits; with `half`, so are the
    parameters.
    """
    contract, statistics = split_tensors(module.contract)
    described = {"module": type(module).__name__, "hyper_parameters": dict(module.hparams), "contract": contract}
    tensors = {k: _halved(v) if half else v for k, v in module.state_dict().items()}
    tensors |= {STATISTICS + k: _halved(v) for k, v in statistics.items()}
    metadata = {METADATA: json.dumps(described)}  # one entry: their order is random
    content = save({k: v.contiguous() for k, v in sorted(tensors.items())}, metadata)
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _halved(value: Tensor) -> Tensor:
    """In float16, if there is much of it and three digits stay."""
    half = value.half()
    exact = torch.allclose(half.float(), value.float(), rtol=1e-3, atol=1e-6)
    return half if exact and value.numel() > 10_000 else value


def card(path: Path) -> dict[str, Any]:
    """The card beside a weights file."""
    beside = path.with_suffix(".json")
    return json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
