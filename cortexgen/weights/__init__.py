"""Trained weights: safetensors files whose metadata rebuild the module, each with a card (.json) beside it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cortexgen.weights.catalogue import APPEARANCE, FEATURES, GENERATE, REGISTER, card, shipped, shipped_names

if TYPE_CHECKING:
    from cortexgen.weights.reading import (
        load,
        load_appearance,
        load_checkpoint,
        load_features,
        load_generator,
        load_registration,
        load_weights,
        read_checkpoint,
        start,
    )
    from cortexgen.weights.writing import save_weights, split_tensors

__all__ = [
    "APPEARANCE",
    "FEATURES",
    "GENERATE",
    "REGISTER",
    "card",
    "load",
    "load_appearance",
    "load_checkpoint",
    "load_features",
    "load_generator",
    "load_registration",
    "load_weights",
    "read_checkpoint",
    "save_weights",
    "shipped",
    "shipped_names",
    "split_tensors",
    "start",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'cortexgen.weights' has no attribute {name!r}")
    where = "writing" if name in ("save_weights", "split_tensors") else "reading"  # which import PyTorch
    return getattr(import_module(f"cortexgen.weights.{where}"), name)
