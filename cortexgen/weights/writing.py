"""A module's parameters and what rebuilds it, as a safetensors file with a card."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from cortexgen.io import atomic
from cortexgen.weights.reading import METADATA, STATISTICS


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


def save_weights(path: Path, module: Any, half: bool = False) -> str:
    """Write a module's parameters and what rebuilds it; returns the file's sha256.

    Statistics of fields are written in float16 where they are many and that keeps three digits; with `half`, so are the
    parameters.
    """
    contract, statistics = split_tensors(module.contract)
    described = {
        "module": type(module).__name__,
        "class_path": module.class_path(),
        "hyper_parameters": dict(module.hparams),
        "contract": contract,
    }
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
